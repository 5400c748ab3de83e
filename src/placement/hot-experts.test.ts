import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HotExperts, hitsToPayBack, hotBudget, type Upload } from './hot-experts.ts';

describe('hits that pay an upload back', () => {
  test('what it takes of the memory over what a hit saves', () => {
    expect(hitsToPayBack({ cpu: 100, dram: 100, gpu: 200 })).toBe(2);
    expect(hitsToPayBack({ cpu: 150e9, dram: 200e9, gpu: 700e9 })).toBeCloseTo(0.955, 3);
    expect(hitsToPayBack({ cpu: 100, dram: 100, gpu: 100 })).toBe(Infinity);
    expect(hitsToPayBack({ cpu: 200, dram: 300, gpu: 100 })).toBe(Infinity);
  });
});

describe('slots by layer', () => {
  test('what a card has left beside its headroom, evenly, the rest to the first layers', () => {
    // 24 GB, 5 % stay free; 58 layers of 26.7 MB an expert.
    const { slots, bytes } = hotBudget({ free: 8e9, total: 24e9 }, Array(58).fill(26.7e6), 256);
    expect(slots.slice(0, 5)).toEqual([5, 5, 5, 5, 5]);
    expect(slots.at(-1)).toBe(4);
    expect(slots.reduce((a, b) => a + b)).toBe(Math.floor(6.8e9 / 26.7e6));
    expect(bytes).toBeLessThanOrEqual(6.8e9);
  });

  test('layers that lie on the card get none, and nothing is more than all', () => {
    expect(hotBudget({ free: 100e9, total: 100e9 }, [0, 1e6, 1e6], 16).slots).toEqual([0, 16, 16]);
    expect(hotBudget({ free: 1e9, total: 24e9 }, [1e6], 16)).toEqual({ slots: [0], bytes: 0 });
    expect(hotBudget({ free: 1e9, total: 2e9 }, [], 16)).toEqual({ slots: [], bytes: 0 });
  });

  test('never more than there is', () => {
    const sizes = fc.array(fc.integer({ min: 0, max: 50e6 }), { maxLength: 60 });
    fc.assert(
      fc.property(sizes, fc.nat(40e9), (expertBytes, free) => {
        const { slots, bytes } = hotBudget({ free, total: 40e9 }, expertBytes, 64);
        expect(bytes).toBeLessThanOrEqual(Math.max(0, free - 2e9));
        expect(bytes).toBe(slots.reduce((sum, count, layer) => sum + count * expertBytes[layer], 0));
        slots.forEach((count, layer) => {
          expect(count).toBeLessThanOrEqual(expertBytes[layer] === 0 ? 0 : 64);
        });
      }),
    );
  });
});

/** Counts of a model of these layers, and a pass that visits experts. */
function model(layers: number, experts: number) {
  const counts = new Uint32Array(layers * experts);
  const visit = (layer: number, ...ids: readonly number[]) => {
    for (const id of ids) counts[layer * experts + id]++;
  };
  return { counts, visit };
}

describe('which are held', () => {
  test('those asked for, once they pay; nothing before', () => {
    const { counts, visit } = model(1, 4);
    const hot = new HotExperts({ experts: 4, slots: [2], payBack: 1, hysteresis: 2 });
    expect(hot.next()).toBeUndefined();
    visit(0, 3);
    hot.observe({ counts });
    expect(hot.next()).toBeUndefined(); // one visit is no reason
    visit(0, 3);
    hot.observe({ counts });
    visit(0, 3, 1);
    hot.observe({ counts });
    const upload = hot.next()!;
    expect(upload).toEqual({ layer: 0, expert: 3, slot: 0, evicts: -1 });
    expect([...hot.table(0)]).toEqual([-1, -1, -1, -1]); // not before it is there
    expect(hot.next()).toBeUndefined(); // one at a time in a layer
    hot.done(upload);
    expect([...hot.table(0)]).toEqual([-1, -1, -1, 0]);
  });

  test('one that is asked for no more gives way, one that is as good does not', () => {
    const { counts, visit } = model(1, 3);
    const hot = new HotExperts({ experts: 3, slots: [1], payBack: 1, halfLife: 8 });
    const pass = (...ids: readonly number[]) => {
      visit(0, ...ids);
      hot.observe({ counts });
      const upload = hot.next();
      if (upload) hot.done(upload);
      return upload?.expert;
    };
    const first = Array.from({ length: 10 }, () => pass(0, 1)).filter((expert) => expert !== undefined);
    expect(first).toEqual([0]); // equals do not take turns
    const later = Array.from({ length: 30 }, () => pass(2)).filter((expert) => expert !== undefined);
    expect(later).toEqual([2]);
    expect([...hot.table(0)]).toEqual([-1, -1, 0]);
  });

  test('prompts do not touch it', () => {
    const { counts, visit } = model(1, 4);
    const hot = new HotExperts({ experts: 4, slots: [2], payBack: 1 });
    for (let row = 0; row < 1000; row++) visit(0, 0, 1, 2, 3);
    hot.ignore({ counts });
    expect(hot.next()).toBeUndefined();
    visit(0, 0);
    hot.observe({ counts });
    expect(hot.next()).toBeUndefined();
  });

  test('many rows of a pass read an expert once', () => {
    const { counts, visit } = model(1, 2);
    const hot = new HotExperts({ experts: 2, slots: [1], payBack: 1, hysteresis: 2 });
    for (let row = 0; row < 64; row++) visit(0, 1);
    hot.observe({ counts });
    expect(hot.next()).toBeUndefined();
  });

  test('counters wrap', () => {
    const hot = new HotExperts({ experts: 1, slots: [1], payBack: 1, hysteresis: 1.5, halfLife: 1000 });
    hot.ignore({ counts: Uint32Array.of(0xffffffff) });
    hot.observe({ counts: Uint32Array.of(0) });
    hot.observe({ counts: Uint32Array.of(1) });
    expect(hot.next()?.expert).toBe(0);
  });

  test('a layer without slots has none, an upload that fails leaves a free slot', () => {
    const { counts, visit } = model(2, 2);
    const hot = new HotExperts({ experts: 2, slots: [0, 1], payBack: 0.1 });
    visit(0, 0);
    visit(1, 1);
    hot.observe({ counts });
    const upload = hot.next()!;
    expect([upload.layer, upload.slot]).toEqual([1, 0]);
    hot.failed(upload);
    expect(hot.next()).toEqual(upload);
  });

  test('where the GPU is no faster nothing is ever held', () => {
    const { counts, visit } = model(1, 2);
    const hot = new HotExperts({ experts: 2, slots: [2], payBack: hitsToPayBack({ cpu: 2, dram: 2, gpu: 1 }) });
    for (let pass = 0; pass < 500; pass++) {
      visit(0, 0);
      hot.observe({ counts });
      expect(hot.next()).toBeUndefined();
    }
  });

  test('whatever comes, a slot has one owner, and an expert one slot', () => {
    const event = fc.oneof(
      fc.record({ kind: fc.constant('pass' as const), ids: fc.array(fc.nat(23), { maxLength: 8 }) }),
      fc.record({ kind: fc.constantFrom('next' as const, 'done' as const, 'failed' as const) }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200 }), (events) => {
        const counts = new Uint32Array(24);
        const slots = [3, 0, 2];
        const hot = new HotExperts({ experts: 8, slots, payBack: 0.2, halfLife: 4 });
        const underWay: Upload[] = [];
        for (const given of events) {
          if (given.kind === 'pass') {
            for (const id of given.ids) counts[id]++;
            hot.observe({ counts });
          } else if (given.kind === 'next') {
            const upload = hot.next();
            if (upload) underWay.push(upload);
          } else if (underWay.length > 0) hot[given.kind](underWay.shift()!);
          slots.forEach((count, layer) => {
            const table = [...hot.table(layer)];
            const held = table.filter((slot) => slot >= 0);
            expect(new Set(held).size).toBe(held.length);
            expect(held.every((slot) => slot < count)).toBe(true);
            // What is being written is nobody's.
            for (const upload of underWay.filter((upload) => upload.layer === layer)) {
              expect(held).not.toContain(upload.slot);
              expect(table[upload.expert]).toBe(-1);
              if (upload.evicts >= 0) expect(table[upload.evicts]).toBe(-1);
            }
          });
        }
      }),
    );
  });
});

test('decides what the native port decides (native/test/cuda_shares_test.cc has the same number)', () => {
  const [experts, slots] = [8, [2, 0, 3]];
  const policy = new HotExperts({ experts, slots, payBack: 1.5 });
  let [state, digest] = [1, 2166136261];
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24;
  const add = (number: number) => {
    digest = Math.imul(digest ^ number, 16777619) >>> 0;
  };
  const counts = new Uint32Array(slots.length * experts);
  for (let pass = 0; pass < 400; pass++) {
    for (let layer = 0; layer < slots.length; layer++)
      for (let pick = 0; pick < 2; pick++) counts[layer * experts + (random() % 5) + Math.floor(pass / 150)]++;
    policy.observe({ counts });
    const upload = policy.next();
    if (!upload) continue;
    for (const number of [upload.layer, upload.expert, upload.slot, upload.evicts]) add(number);
    if (random() % 4 === 0) policy.failed(upload);
    else policy.done(upload);
  }
  for (let layer = 0; layer < slots.length; layer++) for (const slot of policy.table(layer)) add(slot);
  expect(digest).toBe(191725866);
});
