import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { random } from '../../test/conformance/random.ts';
import { streamingPaysFrom } from './physics.ts';
import { microBatchSeconds, planSeconds, planStream, type StreamPlan, streamsFrom } from './streaming.ts';

/** DeepSeek-V3 Q4_K_M: 58 layers of 256 experts, 8 a token, 26.7 MB and 44 million weights each. */
const V3 = { expertBytes: Array(58).fill(26.7e6), experts: 256, weightsPerToken: 58 * 8 * 44e6 };
const GPU = { pcie: 25e9, operations: 150e12 };

describe('from how many rows', () => {
  /** A server: 3 TFLOPS, 200 GB/s. */
  const cpu = (rows: number) =>
    Math.max((396e9 * (1 - (1 - 8 / 256) ** rows)) / 200e9, (2 * V3.weightsPerToken * rows) / 3e12);

  test('where the upload of everything takes as long as the CPU, near the rule of thumb', () => {
    const from = streamsFrom(V3, GPU, cpu, 8192)!;
    expect(from).toBeGreaterThan(streamingPaysFrom(256, 8) / 2);
    expect(from).toBeLessThan(streamingPaysFrom(256, 8) * 2);
    expect(microBatchSeconds(V3, GPU, from)).toBeLessThan(cpu(from));
    expect(microBatchSeconds(V3, GPU, from - 1)).toBeGreaterThanOrEqual(cpu(from - 1));
    // n·B/A until the arithmetic of the card is the larger part.
    expect(4096 / microBatchSeconds(V3, GPU, 4096)).toBeCloseTo((4096 * 25e9) / (58 * 256 * 26.7e6), 6);
    expect(microBatchSeconds(V3, GPU, 1e6)).toBeCloseTo((2 * V3.weightsPerToken * 1e6) / 150e12, 6);
  });

  test('never where it does not pay within a pass, or where nothing is streamed', () => {
    expect(streamsFrom(V3, GPU, cpu, 256)).toBeUndefined();
    expect(streamsFrom(V3, { ...GPU, operations: 1e12 }, cpu, 8192)).toBeUndefined();
    expect(streamsFrom({ ...V3, expertBytes: [] }, GPU, cpu, 8192)).toBeUndefined();
  });

  test('a faster bus needs fewer rows, a faster CPU more', () => {
    const from = (pcie: number, speed: number) =>
      streamsFrom(V3, { ...GPU, pcie }, (rows) => cpu(rows) / speed, 65536)!;
    expect(from(50e9, 1)).toBeLessThan(from(25e9, 1));
    expect(from(25e9, 2)).toBeGreaterThan(from(25e9, 1));
  });
});

/**
 * Runs the plan in an order drawn by chance among those that it allows, and checks what bytes are where: no place of the ring is
 * overwritten before it was uploaded, no buffer before it was computed, and a group is computed of its own bytes, all of them.
 */
function run({ groups, operations, bufferBytes, placeBytes, places }: StreamPlan, next: () => number): number[] {
  const queues = (['stage', 'upload', 'compute'] as const).map((kind) =>
    operations.flatMap((operation, index) => (operation.kind === kind ? [index] : [])),
  );
  const over = new Set<number>();
  const ring: (string | undefined)[] = Array(places).fill(undefined);
  const buffers: { group: number; bytes: number }[] = [0, 1].map(() => ({ group: -1, bytes: 0 }));
  const computed: number[] = [];
  while (over.size < operations.length) {
    const ready = queues.filter(
      ([first]) => first !== undefined && operations[first].after.every((at) => over.has(at)),
    );
    expect(ready.length, 'somebody can go on').toBeGreaterThan(0);
    const index = ready[Math.floor(next() * ready.length)].shift()!;
    const { kind, group, start, bytes, place, buffer } = operations[index];
    over.add(index);
    if (kind === 'stage') {
      expect(ring[place], 'the place is empty').toBeUndefined();
      expect(bytes).toBeLessThanOrEqual(placeBytes);
      ring[place] = `${group} ${start} ${bytes}`;
    } else if (kind === 'upload') {
      if (place >= 0) {
        expect(ring[place]).toBe(`${group} ${start} ${bytes}`);
        ring[place] = undefined;
      }
      if (start === 0) {
        const before = buffers[buffer].group;
        expect(before < 0 || computed.includes(before), 'the buffer is free').toBe(true);
        buffers[buffer] = { group, bytes: 0 };
      }
      expect(buffers[buffer]).toEqual({ group, bytes: start });
      buffers[buffer].bytes += bytes;
      expect(buffers[buffer].bytes).toBeLessThanOrEqual(bufferBytes);
    } else {
      expect(buffers[buffer]).toEqual({ group, bytes: groups[group].bytes });
      computed.push(group);
    }
  }
  return computed;
}

describe('the plan', () => {
  const shapes = fc.record({
    expertBytes: fc.array(fc.integer({ min: 1, max: 40e6 }), { minLength: 1, maxLength: 4 }),
    experts: fc.integer({ min: 1, max: 12 }),
    device: fc.integer({ min: 2, max: 400e6 }),
    ring: fc.oneof(fc.constant(0), fc.integer({ min: 1e6, max: 100e6 })),
    seed: fc.integer({ min: 1 }),
  });

  test('every expert once, in order, whatever runs ahead of what', () => {
    fc.assert(
      fc.property(shapes, ({ expertBytes, experts, device, ring, seed }) => {
        const plan = planStream({ expertBytes, experts, weightsPerToken: 1 }, { device, ring });
        if (Math.max(...expertBytes) > device / 2) {
          expect(plan).toBeUndefined();
          return;
        }
        const { groups, bufferBytes, places, placeBytes } = plan!;
        expect(2 * bufferBytes).toBeLessThanOrEqual(device);
        expect(places * placeBytes).toBeLessThanOrEqual(ring);
        const sent = groups.flatMap(({ layer, first, end }) =>
          Array.from({ length: end - first }, (_, i) => `${layer} ${first + i}`),
        );
        const all = expertBytes.flatMap((_, layer) => Array.from({ length: experts }, (_, e) => `${layer} ${e}`));
        expect(sent).toEqual(all);
        expect(run(plan!, random(seed))).toEqual(groups.map((_, group) => group));
      }),
      { numRuns: 60 },
    );
  });

  test('what cannot be is no plan', () => {
    const one = { expertBytes: [100], experts: 4, weightsPerToken: 1 };
    expect(planStream(one, { device: 199, ring: 0 })).toBeUndefined();
    expect(planStream(one, { device: 200, ring: 1 })).toBeUndefined();
    expect(planStream(one, { device: 200, ring: 0 })?.groups).toHaveLength(4);
    expect(planStream({ ...one, expertBytes: [] }, { device: 0, ring: 0 })?.operations).toEqual([]);
  });

  test('groups of a layer are even', () => {
    const plan = planStream({ ...V3, expertBytes: [26.7e6] }, { device: 3.4e9, ring: 0 })!;
    expect(plan.groups.map(({ first, end }) => end - first)).toEqual([51, 51, 51, 51, 52]);
  });

  test('two buffers hide the arithmetic behind the bus, a ring hides the host’s copy', () => {
    const few = { ...V3, expertBytes: V3.expertBytes.slice(0, 4) };
    const bytes = 4 * 256 * 26.7e6;
    const device = 3.5e9;
    const rates = { stage: 40e9, pcie: 25e9, compute: ({ bytes: own }: { bytes: number }) => own / 60e9 };
    const pinned = planSeconds(planStream(few, { device, ring: 0 })!, rates);
    const ringed = planSeconds(planStream(few, { device, ring: 64 * 2 ** 20 })!, rates);
    const group = planStream(few, { device, ring: 0 })!.bufferBytes;
    // The bus all the time, and the last group's arithmetic; with a ring one piece more.
    expect(pinned).toBeCloseTo(bytes / 25e9 + group / 60e9, 3);
    expect(ringed - pinned).toBeLessThan(0.001);
    // Smaller groups end sooner.
    expect(planSeconds(planStream(few, { device: 4 * 26.7e6, ring: 0 })!, rates)).toBeLessThan(pinned);
    // Where the arithmetic is the larger part, it runs all the time, behind the first upload.
    const heavy = { ...rates, compute: ({ bytes: own }: { bytes: number }) => own / 10e9 };
    expect(planSeconds(planStream(few, { device, ring: 0 })!, heavy)).toBeCloseTo(bytes / 10e9 + group / 25e9, 3);
    // A host that copies slower than the bus decides.
    const slow = { ...rates, stage: 8e9 };
    expect(planSeconds(planStream(few, { device, ring: 64 * 2 ** 20 })!, slow)).toBeGreaterThan(bytes / 8e9);
  });
});
