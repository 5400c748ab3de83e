import { describe, expect, it } from 'vitest';
import { sharingRequest, sharingWarnings } from '../../src/engine/gpu-sharing.ts';
import { withDeferredExperts } from '../../src/models/deferred-experts.ts';
import {
  planSharing,
  reservedFor,
  type SharedLayer,
  type SharingRequest,
  sharedLayers,
  sharingLines,
} from '../../src/placement/expert-sharing.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { tinyProgram } from '../conformance/tiny-program.ts';

const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const { program } = tinyProgram({ seed: 1, layers: [['gqa', 'experts'], ['gqa', 'dense'], ['mla', 'experts']] }); // biome-ignore format: one line
const placed = (...rules: readonly RuleDescription[]) => lower(program, MACHINE, { rules: parseRules(rules) });
const CPU: RuleDescription = { match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } };

/** V3 in 4 bits, as if all its layers were alike. */
const V3: readonly SharedLayer[] = Array.from({ length: 58 }, (_, i) => ({
  layer: i + 3,
  device: 'cuda:0',
  experts: 256,
  chosen: 8,
  steps: 1,
  expertBytes: 26.7e6,
}));
const AUTO: SharingRequest = { hotExperts: 'auto', streamPrefill: 'auto', maxRows: 2048 };
const room = (free: number) => () => ({ free, total: 24e9 });

describe('layers that can take part', () => {
  it('those whose experts are on the CPU and all else on one GPU', () => {
    expect(sharedLayers(placed(CPU, { place: { device: 'cuda:0' } }))).toEqual([
      { layer: 0, device: 'cuda:0', experts: 4, chosen: 2, steps: 1, expertBytes: 3 * 64 * 64 * 4 },
      { layer: 2, device: 'cuda:0', experts: 4, chosen: 2, steps: 1, expertBytes: 3 * 64 * 64 * 4 },
    ]);
    const two = sharedLayers(placed(CPU, { place: { device: 'cuda:{layer * gpus / layers}' } }));
    expect(two.map(({ layer, device }) => [layer, device])).toEqual([
      [0, 'cuda:0'],
      [2, 'cuda:1'],
    ]);
  });

  it('none where the CPU has all, the GPU has all, or the router is elsewhere', () => {
    expect(sharedLayers(placed())).toEqual([]);
    expect(sharedLayers(placed({ match: { op: 'sample' }, place: { device: 'cpu' } }, { place: { device: 'cuda:0' } }))).toEqual([]); // biome-ignore format: one line
    const router: RuleDescription = { match: { op: 'router' }, place: { device: 'cpu' } };
    expect(sharedLayers(placed(router, CPU, { place: { device: 'cuda:0' } }))).toEqual([]);
  });

  it('layers with late experts too: two steps, each with its own choices', () => {
    const rules = parseRules([CPU, { place: { device: 'cuda:0' } }]);
    const { program: deep } = tinyProgram({ seed: 1, layers: [['gqa', 'experts'], ['gqa', 'experts'], ['mla', 'experts']] }); // biome-ignore format: one line
    const late = lower(withDeferredExperts(deep, 1), MACHINE, { rules });
    expect(sharedLayers(late).map(({ layer, chosen, steps }) => [layer, chosen, steps])).toEqual([
      [0, 2, 2],
      [1, 2, 2],
      [2, 2, 1],
    ]);
    expect(planSharing(sharedLayers(late), room(15.2e9), { ...AUTO, maxRows: 4096 }).stream).toBeUndefined();
    expect(() => planSharing(sharedLayers(late), room(15.2e9), { ...AUTO, streamPrefill: 300 })).toThrow(
      'all of a layer are wanted at once; some come a layer late; leave out streamPrefill or deferExperts',
    );
  });
});

describe('what there is room for', () => {
  it('auto: half of it for streams, the rest for experts that are held, evenly', () => {
    const { hot, stream } = planSharing(V3, room(15.2e9), AUTO);
    expect(stream).toEqual({ from: 1024, memory: 7e9 });
    expect([...hot!.slots.slice(0, 4)]).toEqual([0, 0, 0, 5]);
    expect(hot!.bytes).toBeLessThan(7e9);
    expect(sharingLines(V3, { hot, stream })).toEqual([
      expect.stringMatching(/^in decode GPUs hold 4 to 5 of 256 experts of each of 58 layers \(7\.00 GB\), those/),
      'passes over prompts of 1024 rows and more: the experts of 58 layers stream through 7.00 GB of the GPU',
    ]);
  });

  it('auto takes nothing where there is little, and never streams passes that are too short', () => {
    expect(planSharing(V3, room(1.2e9), AUTO)).toEqual({});
    expect(planSharing(V3, room(8e9), AUTO).hot).toBeUndefined();
    expect(planSharing(V3, room(11.2e9), { ...AUTO, maxRows: 512 }).stream).toBeUndefined();
    expect(planSharing([], room(11.2e9), AUTO)).toEqual({});
    expect(planSharing(V3, room(11.2e9), { ...AUTO, hotExperts: 'off', streamPrefill: 'off' })).toEqual({});
  });

  it('a number is met, or refused with numbers', () => {
    const asked = { ...AUTO, hotExperts: 3, streamPrefill: 300 };
    const plan = planSharing(V3, room(11.2e9), asked);
    expect(plan.stream!.from).toBe(300);
    expect(new Set(plan.hot!.slots.slice(3))).toEqual(new Set([3]));
    expect(reservedFor(V3, asked).get('cuda:0')).toBeCloseTo(3 * 58 * 26.7e6 + 2 * 26.7e6, -5);
    expect(() => planSharing(V3, room(3e9), { ...AUTO, hotExperts: 8 })).toThrow(/8 of each layer are 12\.4 GB, 900 MB are free/); // biome-ignore format: one line
    expect(() => planSharing(V3, room(1.2e9), asked)).toThrow(/room for two buffers/);
    expect(() => planSharing([], room(1e9), asked)).toThrow(/no layer is placed so/);
  });
});

describe('what was asked for', () => {
  const run = { exact: false, rounded: true, judging: false, maxRows: 64 };
  it('auto is off where a model is judged or exact', () => {
    expect(sharingRequest({}, run)).toEqual({ hotExperts: 'auto', streamPrefill: 'auto', maxRows: 64 });
    for (const change of [{ exact: true }, { rounded: false }, { judging: true }])
      expect(sharingRequest({}, { ...run, ...change }).hotExperts).toBe('off');
    expect(sharingRequest({ hotExperts: 3 }, { ...run, rounded: false }).hotExperts).toBe(3);
  });
  it('what it cannot be is refused', () => {
    expect(() => sharingRequest({ hotExperts: 0 }, run)).toThrow(/hotExperts is auto, off or 1 to 32767/);
    expect(() => sharingRequest({ streamPrefill: 1.5 }, run)).toThrow(/streamPrefill is auto, off or 2 to 65536/);
    expect(() => sharingRequest({ streamPrefill: 32 }, { ...run, exact: true })).toThrow(/off in exact mode/);
    expect(() => sharingRequest({ hotExperts: 2 }, { ...run, judging: true })).toThrow(/for the native backend/);
  });
  it('what did not come of it is told', () => {
    expect(sharingWarnings({ 'hot experts': 'room for 4 in 2 layers', 'streamed prefill': 'off: no room' })).toEqual([
      'prompts are not streamed: no room',
    ]);
  });
});
