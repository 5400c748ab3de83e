import { describe, expect, test } from 'vitest';
import { buildProgram } from './index.ts';
import { PUBLIC_CONFIGS } from './public-configs.ts';
import { mixFormat, QUANT_MIXES } from './quant-mix.ts';
import { headerCheckpoint, synthesize } from './synthesize.ts';

test.each([
  ['deepseek-v2-lite', { f32: 108, q4_k: 229, q5_0: 14, q6_k: 13, q8_0: 13 }],
  ['deepseek-v3', { f32: 361, q4_k: 606, q6_k: 58 }],
  ['qwen3-30b-a3b', { f32: 241, q4_k: 289, q6_k: 49 }],
] as const)('%s as Q4_K_M has the formats that loaders print of the public file', async (name, expected) => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q4_k_m' });
  const counts: Record<string, number> = {};
  for (const { format } of checkpoint.tensors.values()) counts[format] = (counts[format] ?? 0) + 1;
  expect(counts).toEqual(expected);
});

describe('the public DeepSeek-V2-Lite as Q4_K_M', () => {
  const model = { layers: 27, experts: 64, groupSize: 1, tied: false };
  const format = (name: string, shape: number[]) => mixFormat('q4_k_m', name, shape, model);

  test('rows of 1408 fall back', () => {
    expect(format('blk.1.ffn_down_exps.weight', [64, 2048, 1408])).toBe('q8_0');
    expect(format('blk.3.ffn_down_exps.weight', [64, 2048, 1408])).toBe('q5_0');
    expect(format('blk.3.ffn_gate_exps.weight', [64, 1408, 2048])).toBe('q4_k');
    expect(format('blk.3.ffn_down_shexp.weight', [2048, 2816])).toBe('q4_k');
    expect(format('blk.1.ffn_down_shexp.weight', [2048, 2816])).toBe('q6_k');
    expect(format('output.weight', [102400, 2048])).toBe('q6_k');
    expect(format('blk.1.ffn_gate_inp.weight', [64, 2048])).toBe('f32');
    expect(format('blk.1.attn_norm.weight', [2048])).toBe('f32');
  });

  test('has the size of the public file, 10.36 GB', async () => {
    const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v2-lite'], { name: 'x', mix: 'q4_k_m' });
    let bytes = 0;
    for (const tensor of checkpoint.tensors.values()) bytes += tensor.bytes;
    expect(bytes / 1e9).toBeCloseTo(10.36, 1);
  });
});

test('Qwen3-235B-A22B has the parameters it is named for', async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['qwen3-235b-a22b'], { name: 'x', mix: 'q4_k_m' });
  const { program } = await buildProgram(checkpoint);
  const sizes = [...checkpoint.tensors.values()].map(({ shape }) =>
    shape.reduce((product, length) => product * length, 1),
  );
  expect(sizes.reduce((sum, size) => sum + size, 0) / 1e9).toBeCloseTo(235, -0.5);
  expect(program.steps.filter(({ op }) => op === 'experts')).toHaveLength(94);
});

test.each([
  ['deepseek-v3', 1025],
  ['deepseek-v2', 959],
  ['deepseek-v2-lite', 377],
  ['qwen3-30b-a3b', 579],
  ['mixtral-8x7b', 323],
  ['llama-3.1-8b', 292],
] as const)('%s has as many tensors as its public file: %i', async (name, count) => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q8_0' });
  expect(checkpoint.tensors.size).toBe(count);
});

test('metadata has a tokenizer of unique tokens', async () => {
  const { metadata } = await synthesize(PUBLIC_CONFIGS['llama-3.1-8b'], { name: 'x', mix: 'q8_0' });
  const tokens = metadata.get('tokenizer.ggml.tokens')!.value as { toArray(): unknown[] };
  const all = tokens.toArray();
  expect(all).toHaveLength(128256);
  expect(new Set(all).size).toBe(128256);
});

describe('mixes', () => {
  const model = { layers: 60, experts: 256, groupSize: 1, tied: false };
  const formats = (mix: (typeof QUANT_MIXES)[number], columns = 2048) =>
    ['blk.3.ffn_gate_exps', 'blk.3.ffn_down_exps', 'blk.30.ffn_down_exps', 'blk.3.attn_q_b', 'output'].map((name) =>
      mixFormat(mix, `${name}.weight`, [64, columns], model),
    );

  test('below four bits only the experts are, as in dynamic files', () => {
    expect(formats('iq1_s')).toEqual(['iq1_s', 'iq2_xxs', 'iq1_s', 'q4_k', 'q6_k']);
    expect(formats('q2_k')).toEqual(['q2_k', 'q3_k', 'q2_k', 'q4_k', 'q6_k']);
    expect(formats('iq1_s', 1408)).toEqual(['iq4_nl', 'iq4_nl', 'iq4_nl', 'q5_0', 'q8_0']);
  });

  test('mxfp4 experts beside q8_0', () => {
    expect(formats('mxfp4')).toEqual(['mxfp4', 'mxfp4', 'mxfp4', 'q8_0', 'q8_0']);
  });

  test.each(QUANT_MIXES)('%s: every tensor of a model fits its format', async (mix) => {
    const config = { ...PUBLIC_CONFIGS['deepseek-v2-lite'], num_hidden_layers: 3 };
    const { tensors } = await headerCheckpoint(config, { name: 'x', mix });
    const counts = new Map<string, number>();
    for (const { format, bytes } of tensors.values()) {
      expect(Number.isInteger(bytes)).toBe(true);
      counts.set(format, (counts.get(format) ?? 0) + 1);
    }
    expect(counts.has(mix === 'q4_k_m' ? 'q4_k' : mix)).toBe(true);
  });
});

test('V3 as IQ1_S has about the size of the public 1.58-bit file, 131 GB', async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v3'], { name: 'x', mix: 'iq1_s' });
  let bytes = 0;
  for (const tensor of checkpoint.tensors.values()) bytes += tensor.bytes;
  expect(bytes / 1e9).toBeGreaterThan(125);
  expect(bytes / 1e9).toBeLessThan(145);
});
