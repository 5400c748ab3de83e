/** The formulas, and published speeds held against them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeExpertCacheComputed,
  decodeExpertCacheUploaded,
  decodeFromDisk,
  decodeSerial,
  decodeSharedBeside,
  distinctExperts,
  distinctFactor,
  heldHits,
  prefillOn,
  prefillStreamed,
  seconds,
  streamingPaysFrom,
  uploadBreakEven,
} from './physics.ts';

const GB = 1e9;

describe('the share of the choices that held experts are', () => {
  it('none for none, all for all, between no pattern and what was drawn', () => {
    expect(heldHits(0)).toEqual({ low: 0, expected: 0, high: 0 });
    expect(heldHits(1)).toEqual({ low: 1, expected: 1, high: 1 });
    const share = fc.double({ min: 0.001, max: 0.999, noNaN: true });
    fc.assert(
      fc.property(share, share, (a, b) => {
        const [less, more] = [heldHits(Math.min(a, b)), heldHits(Math.max(a, b))];
        expect(less.low).toBeLessThan(less.expected);
        expect(less.expected).toBeLessThan(less.high);
        expect(less.expected).toBeLessThanOrEqual(more.expected);
      }),
    );
  });

  it('meets the routing drawn like V3 within a twentieth (decision 016)', () => {
    expect(Math.abs(heldHits(26 / 256).high - 0.458)).toBeLessThan(0.05);
    expect(Math.abs(heldHits(32 / 256).high - 0.506)).toBeLessThan(0.05);
  });
});
/** DeepSeek-V3 in Q4_K_M. */
const V3 = { R: 12.4 * GB, S: 9.5 * GB, A: 396 * GB };

const none = { bytes: 0, bandwidth: 1 };
const hybrid = (dram: number, gpu: number, { R, S } = V3) =>
  1 / decodeSerial({ routed: { bytes: R, bandwidth: dram }, dense: { bytes: S, bandwidth: gpu }, cache: none });

describe('published end points', () => {
  // Bandwidths are those of data sheets: channels · rate · 8 bytes, and the card's. Engines reach 31–54 % of this ceiling
  // in most cases, 76 % in the best; a third of a claim beside.
  it.each<[string, number, number, number, readonly [number, number]]>([
    ['KTransformers, 2 × Xeon 6454S (16 × DDR5-4800), RTX 4090D: 12.2 tok/s', 614, 1008, 12.2, [0.31, 0.54]],
    ['the same on one socket: 8.7 tok/s', 307, 1008, 8.7, [0.31, 0.54]],
    ['KTransformers, EPYC 7773X (8 × DDR4-3200), 3090 Ti: 8.7 tok/s', 204.8, 1008, 8.7, [0.54, 0.76]],
    ['llama.cpp there: 4.4 tok/s', 204.8, 1008, 4.4, [0.3, 0.54]],
  ])('%s', (_, dram, gpu, published, [least, most]) => {
    const share = published / hybrid(dram * GB, gpu * GB);
    expect(share).toBeGreaterThan(least);
    expect(share).toBeLessThan(most);
  });

  it('a claim of 28 tok/s for V3 in INT4 on two sockets and an RTX 5090 is below the ceiling', () => {
    expect(28 / hybrid(614 * GB, 1792 * GB)).toBeLessThan(1);
  });

  it('prefill of V3 by streaming: micro-batches of 8192 through PCIe 4 beat the 286 tok/s of AMX', () => {
    expect(prefillStreamed(8192, 25 * GB, V3.A)).toBeGreaterThan(286);
    expect(prefillStreamed(512, 25 * GB, V3.A)).toBeLessThan(54);
    expect(streamingPaysFrom(256, 8)).toBe(1024);
  });
});

describe('formulas', () => {
  const positive = fc.double({ min: 1e-3, max: 1e3, noNaN: true });
  const share = fc.double({ min: 0, max: 1, noNaN: true });

  it('distinct experts: k for one token, at most E, growing', () => {
    expect(distinctExperts(256, 8, 1)).toBeCloseTo(8, 9);
    expect(distinctExperts(256, 8, 1e6)).toBeCloseTo(256, 6);
    expect(distinctExperts(0, 0, 5)).toBe(0);
    expect(distinctFactor(256, 8, 1)).toBeCloseTo(1, 9);
    expect(distinctFactor(0, 0, 9)).toBe(1);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 500 }), (a, b) => {
        const [few, many] = [Math.min(a, b), Math.max(a, b)].map((n) => distinctExperts(128, 8, n));
        expect(few).toBeLessThanOrEqual(many + 1e-9);
        expect(many).toBeLessThanOrEqual(128);
      }),
    );
  });

  it('shared experts beside the routed ones save at most their own time', () => {
    fc.assert(
      fc.property(positive, positive, positive, positive, positive, (routed, shared, rest, dram, gpu) => {
        const on = (bytes: number, bandwidth: number) => ({ bytes, bandwidth });
        const beside = decodeSharedBeside({
          routed: on(routed, dram),
          shared: on(shared, gpu),
          rest: on(rest, gpu),
          cache: none,
        });
        const serial = decodeSerial({ routed: on(routed, dram), dense: on(shared + rest, gpu), cache: none });
        expect(beside).toBeLessThanOrEqual(serial * (1 + 1e-9));
        expect(serial - beside).toBeLessThanOrEqual(seconds(on(shared, gpu)) * (1 + 1e-9) + 1e-9);
      }),
    );
  });

  it('an expert cache: without hits the hybrid, with all of them the GPU; a hit never hurts', () => {
    const parts = { routedBytes: 12, denseBytes: 9, gpu: 1000, dram: 500 };
    expect(decodeExpertCacheComputed({ ...parts, hit: 0 })).toBeCloseTo(12 / 500 + 9 / 1000, 12);
    expect(decodeExpertCacheComputed({ ...parts, hit: 1 })).toBeCloseTo(21 / 1000, 12);
    expect(decodeExpertCacheUploaded({ ...parts, hit: 1, pcie: 25 })).toBeCloseTo(21 / 1000, 12);
    fc.assert(
      fc.property(share, share, (a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        expect(decodeExpertCacheComputed({ ...parts, hit: high })).toBeLessThanOrEqual(
          decodeExpertCacheComputed({ ...parts, hit: low }) + 1e-12,
        );
        expect(decodeExpertCacheComputed({ ...parts, hit: a }, true)).toBeLessThanOrEqual(
          decodeExpertCacheComputed({ ...parts, hit: a }) + 1e-12,
        );
      }),
    );
  });

  it('uploading beats computing from about the break-even on', () => {
    const parts = { routedBytes: 12, denseBytes: 0, gpu: 1e9, dram: 100, pcie: 25 };
    const even = uploadBreakEven(parts.pcie, parts.dram);
    expect(even).toBe(0.75);
    // Misses at the bus against everything on the processor.
    expect(decodeExpertCacheUploaded({ ...parts, hit: even })).toBeCloseTo(12 / 100, 6);
    expect(uploadBreakEven(60, 50)).toBe(0);
  });

  it('a disk: all in memory is memory, nothing is the disk', () => {
    const parts = { routedBytes: 10, ssd: 5, dram: 100, dense: { bytes: 5, bandwidth: 50 } };
    expect(decodeFromDisk({ ...parts, hit: 1 })).toBeCloseTo(0.2, 12);
    expect(decodeFromDisk({ ...parts, hit: 0 })).toBeCloseTo(2.1, 12);
  });

  it('a prompt waits for the slower of reading and computing', () => {
    expect(prefillOn({ bytes: 100, bandwidth: 10 }, 5, 1)).toBe(10);
    expect(prefillOn({ bytes: 10, bandwidth: 10 }, 5, 1)).toBe(5);
    expect(seconds(none)).toBe(0);
  });
});
