/** Sizes of public models against published and hand-computed ones (bytes, decimal). */
import { describe, expect, it } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../models/public-configs.ts';
import type { QuantMix } from '../models/quant-mix.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import { bytesPerToken, sizesOf } from './sizes.ts';

async function sizesFor(model: PublicModel, mix: QuantMix, layers?: number) {
  const config = { ...PUBLIC_CONFIGS[model], ...(layers && { num_hidden_layers: layers }) };
  const { program } = await buildProgram(await headerCheckpoint(config, { name: model, mix }));
  return sizesOf(program);
}

describe('public models', () => {
  // L, E/k, e in MB, R, S and A in GB, KV per token in kB: of the published estimates. Two differ by what they count:
  // gpt-oss caches 37 kB where windows are not kept whole (here they are: 74), and GLM's experts are 10.5 MB where rows of
  // 1408 columns were all four bits (they fall back to five and eight: 11.5).
  it.each<[PublicModel, QuantMix, number, string, number, number, number, number, number]>([
    ['deepseek-v3', 'q4_k_m', 58, '256/8', 26.7, 12.4, 9.5, 396, 70],
    ['deepseek-v3', 'iq1_s', 58, '256/8', 8.8, 4.1, 9.5, 131, 70],
    ['kimi-k2', 'q4_k_m', 60, '384/8', 26.7, 12.8, 6.2, 614, 70],
    ['qwen3-235b-a22b', 'q4_k_m', 94, '128/8', 11.4, 8.6, 4.3, 137, 192],
    ['gpt-oss-120b', 'mxfp4', 36, '128/4', 13.2, 1.9, 1.65, 61, 74],
    ['glm-4.5-air', 'q4_k_m', 45, '128/8', 11.5, 4.1, 3.9, 66, 188],
    ['qwen3-30b-a3b', 'q4_k_m', 48, '128/8', 2.9, 1.1, 0.72, 18, 98],
    ['deepseek-v2-lite', 'q4_k_m', 26, '64/6', 5.7, 0.89, 0.73, 9.5, 31],
  ])('%s %s', async (model, mix, layers, choice, expert, routed, dense, all, kv) => {
    const sizes = await sizesFor(model, mix);
    expect(sizes.moeLayers).toBe(layers);
    expect(`${sizes.experts}/${sizes.chosen}`).toBe(choice);
    const near = (value: number, wanted: number, share: number) =>
      expect(Math.abs(value / wanted - 1), `${value} for ${wanted}`).toBeLessThan(share);
    near(sizes.expertBytes, expert * 1e6, 0.04);
    near(sizes.routedPerToken, routed * 1e9, 0.04);
    near(sizes.routedBytes, all * 1e9, 0.04);
    near(sizes.kvBytesPerToken, kv * 1e3, 0.02);
    // Mixes of the dense part differ by publisher.
    near(sizes.densePerToken, dense * 1e9, 0.15);
  });
});

describe('sizes', () => {
  it('belong together: R = L·k·e, A = L·E·e, everything once', async () => {
    const sizes = await sizesFor('deepseek-v2-lite', 'q4_k_m', 4);
    const { moeLayers, experts, chosen, expertBytes, routedBytes, routedPerToken, densePerToken, matrices } = sizes;
    expect(routedBytes).toBeCloseTo(moeLayers * experts * expertBytes, 0);
    expect(routedPerToken).toBeCloseTo(moeLayers * chosen * expertBytes, 0);
    const sum = (measure: (work: (typeof matrices)[number]) => number) =>
      matrices.reduce((total, work) => total + measure(work), 0);
    expect(sum(({ bytes }) => bytes)).toBe(sizes.weightBytes);
    expect(sum(({ weights }) => weights)).toBe(sizes.parameters);
    expect(sum(bytesPerToken)).toBeCloseTo(routedPerToken + densePerToken, 3);
    expect(sizes.sharedPerToken).toBeGreaterThan(0);
    expect(sizes.sharedPerToken).toBeLessThan(densePerToken);
  });

  it('of a tied head: it is read whole, and counted once', async () => {
    const sizes = await sizesFor('qwen3-0.6b', 'bf16', 2);
    const table = 151936 * 1024 * 2;
    expect(sizes.weightBytes).toBeLessThan(1.5 * table);
    expect(sizes.densePerToken).toBeGreaterThan(table);
    expect(sizes).toMatchObject({ experts: 0, chosen: 0, moeLayers: 0, routedBytes: 0, expertBytes: 0 });
  });

  it('of attention: products per pair, windows apart, latents with their matrices', async () => {
    const [gpt, lite] = [await sizesFor('gpt-oss-20b', 'mxfp4', 4), await sizesFor('deepseek-v2-lite', 'q4_k_m', 2)];
    expect(gpt.attention.map(({ layers, window }) => [layers, window])).toEqual([
      [2, 128],
      [2, undefined],
    ]);
    expect(gpt.attention[0]).toMatchObject({ productsPerPair: 64 * 128, kvBytesPerToken: 2 * 2 * 8 * 128 });
    expect(lite.attention).toEqual([
      {
        op: 'mla',
        layers: 2,
        productsPerPair: 16 * (2 * 512 + 64),
        expandedPerPair: 16 * (128 + 64 + 128),
        weights: 2 * 16 * 256 * 512,
        kvBytesPerToken: 2 * 576 * 2,
      },
    ]);
  });
});
