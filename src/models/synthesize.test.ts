import { describe, expect, test } from 'vitest';
import type { FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { PUBLIC_CONFIGS } from './public-configs.ts';
import { mixFormat } from './quant-mix.ts';
import { headerCheckpoint, randomTensor, SYNTHETIC_FORMATS, synthesize } from './synthesize.ts';

function bytesOf(format: FormatName, shape: number[], seed = 1, name = 'blk.0.ffn_up.weight'): Uint8Array {
  const chunks = [...randomTensor({ name, shape, format }, seed)].map((chunk) => chunk.slice());
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

describe('random tensors', () => {
  test.each(SYNTHETIC_FORMATS)('%s: finite, centred, of the wanted size', (format) => {
    const shape = [64, 512];
    const bytes = bytesOf(format, shape);
    const quant = quantFormat(format);
    expect(bytes.length).toBe(((64 * 512) / quant.blockSize) * quant.blockBytes);
    const values = new Float32Array(64 * 512);
    quant.decodeRow(bytes, values);
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    const rms = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    expect(rms * Math.sqrt(512)).toBeGreaterThan(0.6);
    expect(rms * Math.sqrt(512)).toBeLessThan(1.5);
    expect(Math.abs(mean) / rms).toBeLessThan(0.15);
  });

  test('the same seed gives the same bytes; another seed or name does not', () => {
    const bytes = bytesOf('q4_k', [16, 1024]);
    expect(bytesOf('q4_k', [16, 1024])).toEqual(bytes);
    expect(bytesOf('q4_k', [16, 1024], 2)).not.toEqual(bytes);
    expect(bytesOf('q4_k', [16, 1024], 1, 'blk.1.ffn_up.weight')).not.toEqual(bytes);
  });

  test('a format whose blocks are not understood is refused', () => {
    expect(() => bytesOf('f8_e4m3', [16, 1024])).toThrow(/f8_e4m3 was asked for/);
  });

  test('chunks end anywhere', () => {
    // 4000 rows of three blocks of 144 bytes: more than one chunk, the last one shorter.
    const chunks = [...randomTensor({ name: 'w', shape: [4000, 768], format: 'q4_k' }, 1)].map((chunk) => chunk.length);
    expect(chunks.length).toBeGreaterThan(1);
    expect(chunks.reduce((sum, length) => sum + length, 0)).toBe(4000 * 3 * 144);
  });
});

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
