import { describe, expect, test } from 'vitest';
import type { Checkpoint, MetadataValue, TensorInfo } from '../formats/checkpoint.ts';
import type { Glm4MoeConfig } from './glm4-moe.ts';
import { buildProgram } from './index.ts';
import { PUBLIC_CONFIGS } from './public-configs.ts';
import { headerCheckpoint } from './synthesize.ts';
import { headerOnly, huggingFaceTensors, syntheticModel } from './synthetic.ts';

const AIR = { ...PUBLIC_CONFIGS['glm-4.5-air'], num_hidden_layers: 3 };

async function folder(change: Record<string, unknown> = {}, made: Record<string, unknown> = {}): Promise<Checkpoint> {
  const tensors = huggingFaceTensors(await syntheticModel({ ...AIR, ...made }));
  return headerOnly('huggingface', 'air', tensors, { config: { ...AIR, ...made, ...change } });
}

async function gguf(change: Record<string, MetadataValue | undefined> = {}, made: Record<string, unknown> = {}) {
  const checkpoint = await headerCheckpoint({ ...AIR, ...made }, { name: 'air', mix: 'q8_0' });
  const metadata = new Map(checkpoint.metadata);
  for (const [key, value] of Object.entries(change)) {
    if (value === undefined) metadata.delete(`glm4moe.${key}`);
    else metadata.set(`glm4moe.${key}`, value);
  }
  return { ...checkpoint, metadata };
}

const configOf = async (checkpoint: Checkpoint) => (await buildProgram(checkpoint)).config as Glm4MoeConfig;

test('both containers describe the same model', async () => {
  const [file, unpacked] = [await configOf(await gguf()), await configOf(await folder())];
  expect(file.epsilon).toBeCloseTo(unpacked.epsilon, 10);
  // GGUF demands no biases of its own accord: it has them or not.
  const plain = { ...unpacked, epsilon: file.epsilon, tied: file.tied };
  expect(file).toEqual({ ...plain, attention: { ...plain.attention, bias: 'none' } });
  expect(unpacked).toMatchObject({
    layers: 3,
    firstMoeLayer: 1,
    sharedFfn: 1408,
    attention: { headSize: 128, rotated: 64, style: 'halves', bias: 'qkv' },
    moe: { experts: 128, router: { topk: 8, score: 'sigmoid', groups: 1, normalize: true, scale: 1 } },
  });
});

test('keys that a file leaves out', async () => {
  const bare = { expert_gating_func: undefined, 'rope.dimension_count': undefined, expert_group_count: undefined };
  expect(await configOf(await gguf(bare))).toEqual(await configOf(await gguf()));
});

describe('layers that predict further tokens', () => {
  test('GGUF counts them among its blocks', async () => {
    const checkpoint = await gguf({ block_count: 4, nextn_predict_layers: 1 });
    const tensors = new Map<string, TensorInfo>(checkpoint.tensors);
    const draft = ['blk.3.attn_norm.weight', 'blk.3.nextn.eh_proj.weight'];
    for (const name of draft) tensors.set(name, { ...tensors.get('output_norm.weight')!, name });
    const { config, unused } = await buildProgram({ ...checkpoint, tensors });
    expect(config.layers).toBe(3);
    expect(unused).toEqual(draft);
  });

  test('not all of them', async () => {
    await expect(configOf(await gguf({ nextn_predict_layers: 3 }))).rejects.toThrow(
      /nextn_predict_layers is an integer/,
    );
  });

  test('config.json does not', async () => {
    expect((await configOf(await folder({ num_nextn_predict_layers: 1 }))).layers).toBe(3);
  });

  test.each([true, false])(
    'a folder brings one behind the others, with norms of heads or without: %s',
    async (use_qk_norm) => {
      const checkpoint = await folder({ num_nextn_predict_layers: 1 }, { use_qk_norm });
      const tensors = new Map<string, TensorInfo>(checkpoint.tensors);
      const layer = [...tensors.keys()].filter((name) => name.startsWith('model.layers.2.'));
      const draft = [
        ...layer.map((name) => name.replace('layers.2.', 'layers.3.')),
        ...['eh_proj.weight', 'enorm.weight', 'shared_head.head.weight'].map((name) => `model.layers.3.${name}`),
      ];
      for (const name of draft) tensors.set(name, { ...tensors.get(layer[0])!, name });
      const { program, config, unused } = await buildProgram({ ...checkpoint, tensors });
      expect(config.layers).toBe(3);
      expect(unused).toEqual(draft);
      expect(program.steps.filter((step) => step.op === 'experts').map((step) => step.layer)).toEqual([1, 2]);
    },
  );
});

describe('norms of heads', () => {
  const stepsOf = async (checkpoint: Checkpoint) =>
    (await buildProgram(checkpoint)).program.steps.filter((step) => step.name.endsWith('self_attn.q_norm')).length;

  test.each([true, false])('%s', async (use_qk_norm) => {
    const expected = use_qk_norm ? 3 : 0;
    expect(await stepsOf(await folder({}, { use_qk_norm }))).toBe(expected);
    expect(await stepsOf(await gguf({}, { use_qk_norm }))).toBe(expected);
  });
});

describe('rotation', () => {
  test('its share is found in rope_parameters too', async () => {
    const rope_parameters = { rope_type: 'default', rope_theta: 1_000_000, partial_rotary_factor: 0.25 };
    const { attention } = await configOf(await folder({ partial_rotary_factor: undefined, rope_parameters }));
    expect(attention).toMatchObject({ rotated: 32, rope: { base: 1_000_000 } });
  });

  test.each([
    [{ partial_rotary_factor: 1.5 }, /no more than a head is rotated; .*rotated 192/],
    [{ partial_rotary_factor: 0.3 }, /an even number of columns is rotated/],
  ])('%o', async (change, message) => {
    await expect(configOf(await folder(change))).rejects.toThrow(message);
  });
});

test('biases of q, k and v are demanded, of the output none', async () => {
  const checkpoint = await folder();
  const names = [...checkpoint.tensors.keys()].filter(
    (name) => name.includes('.0.self_attn.') && name.endsWith('bias'),
  );
  expect(names).toEqual(['q', 'k', 'v'].map((which) => `model.layers.0.self_attn.${which}_proj.bias`));
  const tensors = new Map(checkpoint.tensors);
  tensors.delete('model.layers.1.self_attn.v_proj.bias');
  await expect(buildProgram({ ...checkpoint, tensors })).rejects.toThrow(
    /model.layers.1.self_attn.v_proj.bias of 1024/,
  );
});

test('the correction bias is demanded', async () => {
  const checkpoint = await gguf();
  const tensors = new Map(checkpoint.tensors);
  tensors.delete('blk.2.exp_probs_b.bias');
  await expect(buildProgram({ ...checkpoint, tensors })).rejects.toThrow(/blk.2.exp_probs_b.bias/);
});

test('the whole model has the tensors of the public file, 803, less the 23 of its draft layer', async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['glm-4.5-air'], { name: 'air', mix: 'q4_k_m' });
  expect(checkpoint.tensors.size).toBe(803 - 23);
});
