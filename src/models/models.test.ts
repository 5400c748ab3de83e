import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TandemError } from '../errors.ts';
import type { Checkpoint, MetadataValue, TensorInfo } from '../formats/checkpoint.ts';
import { metadataArray } from '../formats/gguf-encode.ts';
import type { DeepseekV3Config } from './deepseek-v3.ts';
import { buildProgram } from './index.ts';
import type { LlamaConfig } from './llama.ts';
import { PUBLIC_CONFIGS, type PublicModel } from './public-configs.ts';
import { headerCheckpoint } from './synthesize.ts';
import { headerOnly, huggingFaceTensors, syntheticModel } from './synthetic.ts';

/** Five layers are enough to meet every kind of layer. */
function shortened<Name extends PublicModel>(name: Name) {
  return { ...PUBLIC_CONFIGS[name], num_hidden_layers: 5 };
}

async function folder(name: PublicModel, change: Record<string, unknown> = {}, fp8 = false): Promise<Checkpoint> {
  const config = shortened(name);
  const tensors = huggingFaceTensors(await syntheticModel(config), { fp8: fp8 ? 'f32' : undefined });
  return headerOnly('huggingface', name, tensors, { config: { ...config, ...change } });
}

async function gguf(name: PublicModel, change: Record<string, MetadataValue | undefined> = {}): Promise<Checkpoint> {
  const checkpoint = await headerCheckpoint(shortened(name), { name, mix: 'q8_0' });
  const metadata = new Map(checkpoint.metadata);
  for (const [key, value] of Object.entries(change)) {
    if (value === undefined) metadata.delete(key);
    else metadata.set(key, value);
  }
  return { ...checkpoint, metadata };
}

/** The checkpoint with its tensors changed. */
function withTensors(checkpoint: Checkpoint, change: (tensors: Map<string, TensorInfo>) => void): Checkpoint {
  const tensors = new Map(checkpoint.tensors);
  change(tensors);
  return { ...checkpoint, tensors };
}

const deepseek = async (checkpoint: Checkpoint) => (await buildProgram(checkpoint)).config as DeepseekV3Config;

describe('which model', () => {
  test('an unknown architecture lists the known ones', async () => {
    await expect(buildProgram(await folder('llama-3.1-8b', { model_type: 'mamba' }))).rejects.toThrow(
      /known architectures are deepseek_v2, deepseek_v3, kimi_k2, glm4_moe, gpt_oss, qwen3_moe, qwen3, llama, mixtral; llama-3.1-8b is mamba/,
    );
    await expect(buildProgram(await gguf('qwen3-0.6b', { 'general.architecture': 'rwkv' }))).rejects.toMatchObject({
      code: 'MODEL_UNSUPPORTED',
    });
  });

  test('a checkpoint without a name is no model', async () => {
    await expect(buildProgram(await gguf('qwen3-0.6b', { 'general.architecture': undefined }))).rejects.toThrow(
      /says its general.architecture/,
    );
  });
});

describe('description', () => {
  test.each([
    ['missing', { num_attention_heads: undefined }, /deepseek_v3 says num_attention_heads/],
    ['absurd', { num_hidden_layers: 2 ** 40 }, /num_hidden_layers is an integer from 1 to 4096; .*1099511627776/],
    ['fractional', { num_experts_per_tok: 1.5 }, /num_experts_per_tok is an integer/],
    ['text for a number', { hidden_size: 'large' }, /hidden_size is a number; .*"large"/],
    ['more experts used than kept', { num_experts_per_tok: 200 }, /no more experts are used than the kept groups have/],
    ['uneven groups', { n_group: 7 }, /divided evenly into groups/],
    ['another activation', { hidden_act: 'gelu' }, /hidden_act is one of silu/],
    ['another scaling', { rope_scaling: { type: 'dynamic', factor: 2 } }, /rope_scaling.type is one of/],
  ])('%s', async (_, change, message) => {
    await expect(buildProgram(await folder('deepseek-v3', change))).rejects.toThrow(message);
  });

  test('64-bit and per-layer values of GGUF are read', async () => {
    const same = metadataArray('u32', [32, 32]);
    const { program } = await buildProgram(
      await gguf('qwen3-30b-a3b', { 'qwen3moe.embedding_length': 2048n, 'qwen3moe.attention.head_count': same }),
    );
    expect(program.values[0].columns).toBe(2048);
    const mixed = metadataArray('u32', [32, 16]);
    await expect(buildProgram(await gguf('qwen3-30b-a3b', { 'qwen3moe.attention.head_count': mixed }))).rejects.toThrow(
      /attention.head_count is the same in all layers/,
    );
  });

  test('the base of the rotation is found beside rope_parameters too', async () => {
    const { config } = await buildProgram(
      await folder('qwen3-0.6b', { rope_parameters: { rope_type: 'default' }, rope_theta: 5_000_000 }),
    );
    expect((config as LlamaConfig).attention.rope.base).toBe(5_000_000);
  });

  test('a shorter context can be asked for, a longer one not', async () => {
    const checkpoint = await gguf('qwen3-0.6b');
    expect((await buildProgram(checkpoint, { contextLength: 512 })).program.contextLength).toBe(512);
    await expect(buildProgram(checkpoint, { contextLength: 1_000_000 })).rejects.toThrow(/1 to 40960/);
  });

  test('a sliding window limits the context of llama', async () => {
    const { program } = await buildProgram(await folder('mixtral-8x7b', { sliding_window: 4096 }));
    expect(program.contextLength).toBe(4096);
  });
});

test('whatever a value is, the answer is a Program or one clear error', async () => {
  const good = await gguf('deepseek-v2-lite');
  const keys = [...good.metadata.keys()].filter((key) => key.startsWith('deepseek2.'));
  const odd = fc.oneof(
    fc.integer(),
    fc.double(),
    fc.bigInt(),
    fc.boolean(),
    fc.string(),
    fc.constantFrom(0, -1, 1, 2 ** 60, 2n ** 63n, Number.NaN, Number.POSITIVE_INFINITY, 1e-300),
    fc.array(fc.integer()).map((values) => metadataArray('i32', values)),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...keys), odd, async (key, value) => {
      const metadata = new Map<string, MetadataValue>([...good.metadata, [key, value]]);
      const problem = await buildProgram({ ...good, metadata }).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (problem !== undefined) expect(problem).toBeInstanceOf(TandemError);
    }),
    { numRuns: 300 },
  );
});

describe('weights', () => {
  test('a missing tensor is named', async () => {
    const checkpoint = withTensors(await gguf('deepseek-v2-lite'), (all) => all.delete('blk.3.attn_output.weight'));
    await expect(buildProgram(checkpoint)).rejects.toThrow(
      /model.layers.3.self_attn.o_proj.weight of 2048 × 2048; .*no tensor blk.3.attn_output.weight/,
    );
  });

  test('a wrong shape says both', async () => {
    const name = 'model.layers.0.self_attn.kv_b_proj.weight';
    const checkpoint = withTensors(await folder('deepseek-v2-lite'), (all) =>
      all.set(name, { ...all.get(name)!, shape: [4096, 256] }),
    );
    await expect(buildProgram(checkpoint)).rejects.toThrow(/is 4096 × 512 by the configuration; .*it is 4096 × 256/);
  });

  test('a missing expert is named', async () => {
    const name = 'model.layers.2.mlp.experts.17.down_proj.weight';
    const checkpoint = withTensors(await folder('deepseek-v2-lite'), (all) => all.delete(name));
    await expect(buildProgram(checkpoint)).rejects.toThrow(name);
  });

  test('experts of one layer have one format', async () => {
    const name = 'model.layers.2.mlp.experts.17.down_proj.weight';
    const checkpoint = withTensors(await folder('deepseek-v2-lite'), (all) =>
      all.set(name, { ...all.get(name)!, format: 'f16' }),
    );
    await expect(buildProgram(checkpoint)).rejects.toMatchObject({ code: 'FORMAT_UNSUPPORTED' });
  });

  test('an unknown format names tensor and type', async () => {
    const name = 'blk.0.ffn_up.weight';
    const checkpoint = withTensors(await gguf('llama-3.1-8b'), (all) =>
      all.set(name, { ...all.get(name)!, format: 'unknown:41' }),
    );
    await expect(buildProgram(checkpoint)).rejects.toThrow(/blk.0.ffn_up.weight is unknown:41/);
  });

  test('FP8 brings its scales, and misses them', async () => {
    const checkpoint = await folder('deepseek-v3', {}, true);
    const { program } = await buildProgram(checkpoint);
    const down = program.weights.find((weight) => weight.name === 'model.layers.3.mlp.experts.{e}.down_proj.weight')!;
    expect(down).toMatchObject({ shape: [256, 7168, 2048], format: 'f8_e4m3' });
    expect(down.parts).toHaveLength(256);
    expect(down.scales?.[255]).toBe('model.layers.3.mlp.experts.255.down_proj.weight_scale_inv');
    const name = 'model.layers.0.self_attn.o_proj.weight_scale_inv';
    await expect(buildProgram(withTensors(checkpoint, (all) => all.delete(name)))).rejects.toThrow(name);
  });

  test('packed integers of another kind are refused by name', async () => {
    const stem = 'model.layers.1.mlp.experts.0.gate_proj';
    const checkpoint = withTensors(await folder('kimi-k2'), (all) => {
      all.set(`${stem}.qweight`, all.get(`${stem}.weight`)!);
      all.delete(`${stem}.weight`);
    });
    await expect(buildProgram(checkpoint)).rejects.toThrow(/experts.0.gate_proj.qweight, an integer packing/);
  });

  test('a bias that the description speaks of is demanded', async () => {
    await expect(buildProgram(await folder('llama-3.1-8b', { attention_bias: true }))).rejects.toThrow(
      /model.layers.0.self_attn.q_proj.bias of 4096/,
    );
  });

  test('an absent head is the embedding, unless the description denies it', async () => {
    const { program } = await buildProgram(await gguf('qwen3-0.6b'));
    expect(program.steps.at(-2)!.inputs[1]).toEqual({ kind: 'weight', weight: 0 });
    const headless = withTensors(await folder('llama-3.1-8b'), (all) => all.delete('lm_head.weight'));
    await expect(buildProgram(headless)).rejects.toThrow(/lm_head.weight/);
  });

  test('layers after the last are left alone', async () => {
    const checkpoint = withTensors(await folder('deepseek-v3'), (all) =>
      all.set('model.layers.61.eh_proj.weight', all.get('lm_head.weight')!),
    );
    expect((await buildProgram(checkpoint)).unused).toEqual(['model.layers.61.eh_proj.weight']);
  });
});

describe('DeepSeek files', () => {
  /** k_b and v_b as one matrix each, as some converters write them, beside the whole kv_b or instead. */
  const addHalves = (all: Map<string, TensorInfo>) => {
    for (let layer = 0; layer < 5; layer++) {
      const like = all.get(`blk.${layer}.attn_kv_b.weight`)!;
      const [k, v] = [`blk.${layer}.attn_k_b.weight`, `blk.${layer}.attn_v_b.weight`];
      all.set(k, { ...like, name: k, shape: [16 * 512, 128] });
      all.set(v, { ...like, name: v, shape: [16 * 128, 512] });
    }
  };
  const mlaOperands = async (checkpoint: Checkpoint) => {
    const { program } = await buildProgram(checkpoint);
    const step = program.steps.find(({ op }) => op === 'mla')!;
    return step.inputs.slice(1).map((operand) => operand?.kind === 'weight' && program.weights[operand.weight].shape);
  };

  test('kv_b whole is taken before its halves', async () => {
    const checkpoint = withTensors(await gguf('deepseek-v2-lite'), addHalves);
    expect(await mlaOperands(checkpoint)).toEqual([[16 * 256, 512], false, false]);
  });

  test('halves may be flat', async () => {
    const checkpoint = withTensors(await gguf('deepseek-v2-lite'), (all) => {
      addHalves(all);
      for (let layer = 0; layer < 5; layer++) all.delete(`blk.${layer}.attn_kv_b.weight`);
    });
    expect(await mlaOperands(checkpoint)).toEqual([false, [16, 512, 128], [16, 128, 512]]);
  });

  const without = (...keys: string[]) => Object.fromEntries(keys.map((key) => [`deepseek2.${key}`, undefined]));
  const noGroups = without('expert_group_count', 'expert_group_used_count');

  test('V3 without group keys has its groups', async () => {
    expect((await deepseek(await gguf('deepseek-v3', noGroups))).moe?.router).toMatchObject({
      groups: 8,
      groupTopk: 4,
      groupScore: 'top2',
    });
  });

  test('V2 without group keys has its groups', async () => {
    const keys = { ...noGroups, ...without('expert_gating_func') };
    expect((await deepseek(await gguf('deepseek-v2', keys))).moe?.router).toMatchObject({
      score: 'softmax',
      groups: 8,
      groupTopk: 3,
      groupScore: 'max',
    });
  });

  test('others have one group', async () => {
    expect((await deepseek(await gguf('kimi-k2', noGroups))).moe?.router.groups).toBe(1);
    expect((await deepseek(await gguf('deepseek-v2-lite', noGroups))).moe?.router.groups).toBe(1);
  });

  test('Kimi-K2 without ramp keys has a ramp of one pair', async () => {
    const keys = without('rope.scaling.yarn_beta_fast', 'rope.scaling.yarn_beta_slow');
    expect((await deepseek(await gguf('kimi-k2', keys))).rope.scaling).toMatchObject({ betaFast: 1, betaSlow: 1 });
    expect((await deepseek(await gguf('deepseek-v3', keys))).rope.scaling).toMatchObject({ betaFast: 32, betaSlow: 1 });
  });

  test('both mscales: softmax scale squared, cos and sin by their ratio', async () => {
    const scaling = { ...PUBLIC_CONFIGS['deepseek-v3'].rope_scaling, mscale: 1, mscale_all_dim: 0.5 };
    const { program, config } = await buildProgram(await folder('deepseek-v3', { rope_scaling: scaling }));
    const m = (s: number) => 1 + 0.1 * s * Math.log(40);
    expect((config as DeepseekV3Config).rope.scaling).toMatchObject({ magnitude: m(1) / m(0.5), attention: m(0.5) });
    const mla = program.steps.find((step) => step.op === 'mla')!;
    expect(mla.attributes.scale).toBeCloseTo(192 ** -0.5 * m(0.5) ** 2, 12);
  });

  test('an mscale of 0 is none', async () => {
    const scaling = { ...PUBLIC_CONFIGS['deepseek-v3'].rope_scaling, mscale: 0, mscale_all_dim: 0 };
    const read = async (checkpoint: Checkpoint) => (await deepseek(checkpoint)).rope.scaling;
    const none = { magnitude: 1, attention: 1 };
    expect(await read(await folder('deepseek-v3', { rope_scaling: scaling }))).toMatchObject(none);
    expect(await read(await gguf('deepseek-v3', { 'deepseek2.rope.scaling.yarn_log_multiplier': 0 }))).toMatchObject(
      none,
    );
  });

  test('GGUF says 0.1 · mscale_all_dim', async () => {
    const scaling = (await deepseek(await gguf('deepseek-v3'))).rope.scaling;
    expect(scaling).toMatchObject({ magnitude: 1, attention: expect.closeTo(1 + 0.1 * Math.log(40), 6) });
  });

  test('trailing draft layers are not counted', async () => {
    const checkpoint = withTensors(await gguf('deepseek-v2-lite', { 'deepseek2.block_count': 6 }), (all) =>
      all.set('blk.5.nextn.eh_proj.weight', all.get('output.weight')!),
    );
    expect((await deepseek(checkpoint)).layers).toBe(5);
  });

  test.each(['exp_probs_b.bias', 'exp_probs_b', 'exp_probs_b.weight'])(
    'the correction bias may be %s',
    async (suffix) => {
      const checkpoint = withTensors(await gguf('deepseek-v3'), (all) => {
        const name = 'blk.4.exp_probs_b.bias';
        const tensor = all.get(name)!;
        all.delete(name);
        all.set(`blk.4.${suffix}`, { ...tensor, name: `blk.4.${suffix}` });
      });
      const { program, unused } = await buildProgram(checkpoint);
      const bias = program.steps.find((step) => step.op === 'router' && step.layer === 4)!.inputs[1];
      expect(bias?.kind === 'weight' && program.weights[bias.weight].name).toBe(`blk.4.${suffix}`);
      expect(unused).toEqual([]);
    },
  );

  test('moe_layer_freq leaves layers dense', async () => {
    const config = { ...shortened('deepseek-v2-lite'), moe_layer_freq: 2 };
    const { program } = await buildProgram(
      headerOnly('huggingface', 'sparse', huggingFaceTensors(await syntheticModel(config)), { config }),
    );
    const layers = program.steps.filter((step) => step.op === 'experts').map((step) => step.layer);
    expect(layers).toEqual([2, 4]);
  });
});

describe('llama files', () => {
  test('Llama 3.1 in GGUF keeps its bands as a tensor', async () => {
    const file = (await buildProgram(await gguf('llama-3.1-8b'))).program;
    const folded = (await buildProgram(await folder('llama-3.1-8b'))).program;
    const of = (program: typeof file) => program.steps.find((step) => step.op === 'rope')!.attributes;
    const expected = of(folded).frequencies as number[];
    for (const [i, frequency] of (of(file).frequencies as number[]).entries()) {
      expect(Math.abs(frequency / expected[i] - 1)).toBeLessThan(1e-6);
    }
    expect([of(file).style, of(folded).style]).toEqual(['pairs', 'halves']);
  });

  test('rope_parameters of newer descriptions are read', async () => {
    const { rope_theta, rope_scaling, ...rest } = shortened('llama-3.1-8b');
    const config = { ...rest, rope_parameters: { ...rope_scaling, rope_theta } };
    const tensors = huggingFaceTensors(await syntheticModel(config));
    const built = await buildProgram(headerOnly('huggingface', 'new', tensors, { config }));
    const rope = (built.config as LlamaConfig).attention.rope;
    expect(rope).toMatchObject({ base: 500_000, scaling: { type: 'llama3', factor: 8 } });
  });
});
