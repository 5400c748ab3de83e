import { describe, expect, test } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../models/public-configs.ts';
import type { QuantMix } from '../models/quant-mix.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import type { Program } from '../program/program.ts';
import { activeWeights } from './active-weights.ts';
import { planMemory, weightBytes } from './budget.ts';
import { lower } from './lower.ts';
import { tileRule, tileUnit } from './tiles.ts';

async function program(name: PublicModel, mix: QuantMix): Promise<Program> {
  return (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix }))).program;
}

describe('lower', () => {
  test('activations follow the weights, the intermediate the down product', async () => {
    const placed = lower(await program('deepseek-v2-lite', 'q4_k_m'), { device: 'cpu' });
    const of = (name: string) => placed.steps.find((step) => step.name === name)!.placement;
    expect(of('model.layers.5.mlp.experts')).toEqual({ device: 'cpu', activation: 'q8_256', middle: 'q8_32' });
    expect(of('model.layers.5.mlp.gate')).toEqual({ device: 'cpu', activation: 'f32' });
    expect(of('model.layers.5.self_attn.mla')).toEqual({ device: 'cpu', activation: 'f32' });
    expect(of('lm_head')).toEqual({ device: 'cpu', activation: 'q8_256' });
  });

  test('gate and up that want different blocks leave x as it is', async () => {
    const mixed = await program('deepseek-v2-lite', 'q4_k_m');
    const up = mixed.weights.findIndex((weight) => weight.name === 'blk.1.ffn_up_exps.weight');
    const weights = mixed.weights.map((weight, id) => (id === up ? { ...weight, format: 'q8_0' as const } : weight));
    const placed = lower({ ...mixed, weights }, { device: 'cpu' });
    const experts = placed.steps.find((step) => step.op === 'experts')!;
    expect(experts.placement).toEqual({ device: 'cpu', activation: 'f32', middle: 'q8_32' });
  });

  test('f32 activations round nothing, on tiles neither', async () => {
    const machine = { device: 'cpu', tiles: tileRule('amx') } as const;
    const placed = lower(await program('deepseek-v2-lite', 'q4_k_m'), machine, { activations: 'f32' });
    for (const { placement } of placed.steps) {
      expect(placement!.activation).toBe('f32');
      expect(placement!.middle ?? 'f32').toBe('f32');
      expect(placement!.tiles).toBeUndefined();
    }
  });

  test('fast mode adds tiles where the rule says so, never to what chooses experts; exact mode leaves them away', async () => {
    const lite = await program('deepseek-v2-lite', 'q8_0');
    const router = lite.steps.find((step) => step.name === 'model.layers.5.mlp.gate')!;
    const weight = (router.inputs[1] as { weight: number }).weight;
    // Some files keep the router in bf16: it stays off the tiles for what it does, not for its format.
    const weights = lite.weights.map((each) => (each.id === weight ? { ...each, format: 'bf16' as const } : each));
    const mixed = { ...lite, weights };
    const fast = lower(mixed, { device: 'cpu', tiles: tileRule('amx') });
    const of = (name: string) => fast.steps.find((step) => step.name === name)!.placement;
    expect(of('model.layers.5.mlp.experts')).toEqual({
      device: 'cpu',
      activation: 'q8_32',
      middle: 'q8_32',
      tiles: 12,
    });
    expect(of('lm_head')).toEqual({ device: 'cpu', activation: 'q8_32', tiles: 12 });
    expect(of('model.layers.5.mlp.gate')).toEqual({ device: 'cpu', activation: 'f32' });
    const exact = lower(mixed, { device: 'cpu', tiles: tileRule('amx') }, { exact: true });
    expect(exact).toEqual(lower(mixed, { device: 'cpu' }));
  });

  test('a step with several weights runs on tiles only if all of them do', async () => {
    const lite = await program('deepseek-v2-lite', 'q4_k_m');
    const rule = (_: string, format?: string) => ({ q4_k: 8, q5_0: 24 })[format ?? ''];
    const { steps, weights } = lower(lite, { device: 'cpu', tiles: rule });
    const tiles = new Map<string, number | undefined>();
    for (const { op, inputs, placement } of steps) {
      if (op !== 'experts') continue;
      const formats = inputs.slice(3).map((input) => weights[(input as { weight: number }).weight].format);
      tiles.set(formats.join(' '), placement!.tiles);
    }
    expect(tiles).toEqual(
      new Map([
        ['q4_k q4_k q8_0', undefined],
        ['q4_k q4_k q5_0', 24],
      ]),
    );
  });

  test('AVX512-BF16 serves the formats without int8 kernels', () => {
    const rule = tileRule('avx512-bf16');
    expect(rule('experts', 'q4_k')).toBeUndefined();
    expect(rule('experts', 'f8_e4m3')).toBe(8);
    expect(rule('linear', 'bf16')).toBe(8);
    expect(rule('linear', 'f32')).toBeUndefined();
    expect(tileRule('')('linear', 'bf16')).toBeUndefined();
  });

  test('a build below AVX-512 has no unit, an emulated one neither', () => {
    const machine = { isa: 'avx512', tiles: 'amx-emulated', features: ['avx512bf16', 'avx512vbmi'] } as const;
    const unit = (tiles: 'amx-emulated' | '', isa?: string) => tileUnit({ ...machine, tiles } as never, isa);
    expect([unit('amx-emulated'), unit('amx-emulated', 'avx2'), unit('amx-emulated', 'amx')]).toEqual([
      'amx-emulated',
      '',
      'amx-emulated',
    ]);
    expect([unit(''), unit('', 'scalar'), unit('', 'amx')]).toEqual(['', '', 'amx']);
  });

  test('attention goes by panels on every machine; latent attention decodes on a unit too', () => {
    for (const unit of ['', 'avx512-bf16', 'amx'] as const) {
      const rule = tileRule(unit);
      expect(rule('attention')).toBe(16);
      expect(rule('mla', 'f32')).toBe(unit ? 1 : 16);
      expect(rule('router')).toBeUndefined();
    }
  });
});

describe('memory', () => {
  const request = { context: 4096, maxRows: 256, maxOutputs: 16 };

  test('weights are what the file holds', async () => {
    const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v2-lite'], { name: 'x', mix: 'q4_k_m' });
    const built = await buildProgram(checkpoint);
    let file = 0;
    for (const tensor of checkpoint.tensors.values()) file += tensor.bytes;
    expect(built.program.weights.reduce((sum, weight) => sum + weightBytes(weight), 0)).toBe(file);
  });

  test('FP8 scales count', () => {
    const weight = {
      id: 0,
      name: 'w',
      format: 'f8_e4m3',
      shape: [2, 200, 300],
      parts: ['a', 'b'],
      scales: ['c', 'd'],
    } as const;
    expect(weightBytes(weight)).toBe(2 * (200 * 300 + 2 * 3 * 4));
  });

  test('V3 keeps 70 KB a token', async () => {
    const plan = planMemory(await program('deepseek-v3', 'q4_k_m'), { ...request, sequences: 2 });
    expect(plan.pageBytes).toBe(64 * 61 * 576 * 2);
    expect(plan.pages).toBe(128);
    expect(plan.total).toBe(plan.weights + plan.buffers + plan.pages * plan.pageBytes);
  });

  test('a limit takes pages, but never those of one sequence', async () => {
    const lite = await program('deepseek-v2-lite', 'q4_k_m');
    const whole = planMemory(lite, { ...request, sequences: 4 });
    expect(whole.pages).toBe(256);
    const memory = whole.weights + whole.buffers + 100.5 * whole.pageBytes;
    expect(planMemory(lite, { ...request, sequences: 4, memory }).pages).toBe(100);
    expect(() => planMemory(lite, { ...request, context: 6401, memory })).toThrow(
      /memory of 9\.9 GiB: weights take .* buffers .* the KV cache of 6401 tokens 191\.7 MiB .*at most 6400 tokens/,
    );
  });

  test('a KV budget below one sequence is refused with the numbers', async () => {
    const lite = await program('deepseek-v2-lite', 'q8_0');
    expect(() => planMemory(lite, { ...request, kvMemory: 2 ** 20 })).toThrow(
      expect.objectContaining({ code: 'PLACEMENT_IMPOSSIBLE' }),
    );
    expect(() => planMemory(lite, { ...request, kvMemory: 2 ** 20 })).toThrow(
      /a KV budget of 1.0 MiB: .* raise the KV budget$/,
    );
  });

  test('a longer context than the model has is refused', async () => {
    const small = await program('qwen3-0.6b', 'q8_0');
    expect(() => planMemory(small, { ...request, context: 50_000 })).toThrow(/1 to 40960 tokens; 50000/);
  });
});

test('active weights are those the model is known for', async () => {
  // 671 B and 37 B with the embedding; 15.7 B and 2.4 B.
  expect(activeWeights(await program('deepseek-v3', 'q4_k_m')) / 1e9).toBeCloseTo(36.6, 0);
  expect(activeWeights(await program('deepseek-v2-lite', 'q4_k_m')) / 1e9).toBeCloseTo(2.4, 0);
});
