/** Profiles, fits, predictions, advice: what has to hold whatever the model and the machine. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../models/public-configs.ts';
import type { QuantMix } from '../models/quant-mix.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import type { Program } from '../program/program.ts';
import { matrixSeconds } from './costs.ts';
import { type FitRequest, fitModel as fitRoom, roomOf } from './fit.ts';
import { decodeSharedBeside } from './physics.ts';
import { type Plan, type PlanRequest, placedFor, plan } from './plan.ts';
import { predictDecode, predictPrefill } from './predict.ts';
import { availableOf, type MachineProfile, parseProfile, threadsOf } from './profile.ts';
import { type PlaceDescription, parseRules, parseRulesFile } from './rules-file.ts';
import { sizesOf } from './sizes.ts';

const GB = 1e9;

async function programOf(model: PublicModel, mix: QuantMix): Promise<Program> {
  return (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[model], { name: model, mix }))).program;
}

/** A server from its data sheet: V3 in four bits fits. */
const SERVER = {
  cpu: { isa: 'amx', tiles: 'amx', cores: 64 },
  memory: { bytes: 512 * GB, bandwidth: 614 * GB },
  disk: { bandwidth: 5 * GB },
};
const CARD = { device: 'cuda:0', memoryBytes: 24 * GB, bandwidth: 1008 * GB, bf16: 165e12 };
const server = (more: object = {}): MachineProfile => parseProfile({ ...SERVER, ...more }, 'test');
const withMemory = (bytes: number, more: object = {}) =>
  server({ memory: { ...SERVER.memory, bytes, available: bytes }, ...more });

const fitModel = (program: Program, machine: MachineProfile, request?: FitRequest) =>
  fitRoom(sizesOf(program), roomOf(machine), request);
const place = (program: Program, machine: MachineProfile, request?: PlanRequest) =>
  placedFor(program, sizesOf(program), machine, request).placed;

let v3: Program;
let lite: Program;
let llama: Program;
beforeAll(async () => {
  [v3, lite, llama] = await Promise.all([
    programOf('deepseek-v3', 'q4_k_m'),
    programOf('deepseek-v2-lite', 'q4_k_m'),
    programOf('llama-3.1-8b', 'q4_k_m'),
  ]);
});

describe('experts that a GPU holds beside the processor', () => {
  const oneGpu = parseRules([{ match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } }, { place: { device: 'cuda:0' } }]); // biome-ignore format: one line
  const planned = (memoryBytes: number, more: PlanRequest = {}) =>
    plan(v3, server({ gpus: [{ ...CARD, memoryBytes }] }), { context: 8192, rules: oneGpu, ...more });

  it('are as many as there is room for, and bring what is expected', () => {
    const [small, large] = [planned(24 * GB), planned(80 * GB)];
    for (const { hot, decode } of [small, large]) {
      const { layers, slots, experts, bytes, hits, without } = hot!;
      expect([layers, experts]).toEqual([58, 256]);
      expect(hits.low).toBeGreaterThanOrEqual(slots[0] / 256);
      expect(hits.low).toBeLessThanOrEqual(slots[1] / 256);
      expect(bytes / (58 * 26.7e6 * 256 * hits.low)).toBeCloseTo(1, 1);
      expect(decode!.tokensPerSecond.expected).toBeGreaterThan(without);
    }
    expect(large.hot!.slots[0]).toBeGreaterThan(small.hot!.slots[1]);
    expect(large.decode!.seconds).toBeLessThan(small.decode!.seconds);
    expect(large.hot!.without).toBe(small.hot!.without);
  });

  it('none where nobody wants them, so many as were asked for, an error where they do not fit', () => {
    const off = planned(80 * GB, { hotExperts: 'off' });
    expect(off.hot).toBeUndefined();
    expect(off.decode!.tokensPerSecond.expected).toBe(planned(80 * GB).hot!.without);
    expect(planned(80 * GB, { hotExperts: 7 }).hot!.slots).toEqual([7, 7]);
    expect(() => planned(24 * GB, { hotExperts: 200 })).toThrow(
      "has room for the experts that it holds beside the CPU's",
    );
    expect(() => plan(v3, server(), { hotExperts: 7 })).toThrow('no layer is placed so');
  });

  it('leave a prompt alone, and never make a token slower', () => {
    fc.assert(
      fc.property(fc.integer({ min: 50, max: 3000 }), fc.integer({ min: 20, max: 80 }), (speed, memory) => {
        const machine = server({ gpus: [{ ...CARD, memoryBytes: memory * GB, bandwidth: speed * GB }] });
        const [held, off] = (['auto', 'off'] as const).map((hotExperts) => plan(lite, machine, { context: 8192, rules: oneGpu, hotExperts })); // biome-ignore format: one line
        expect(held.prefill).toEqual(off.prefill);
        expect(held.decode!.seconds).toBeLessThanOrEqual(off.decode!.seconds * (1 + 1e-9));
        // A card that reads slower than the processor holds none.
        if (speed < 200) expect(held.hot).toBeUndefined();
      }),
      { numRuns: 20 },
    );
  });
});

describe('a profile', () => {
  it('is small where little is known; what is left out has a default', () => {
    const profile = server();
    expect(profile).toMatchObject({
      cpu: { model: 'CPU', cores: 64 },
      memory: { nodes: 1, measured: false },
      gpus: [],
    });
    expect(threadsOf(profile)).toBe(63);
    expect(availableOf(profile)).toBe(512 * GB - 4 * 2 ** 30);
    expect(availableOf(server({ container: { memory: 64 * GB } }))).toBe(60 * GB);
  });

  it('is found inside what bench machine prints and records', () => {
    expect(parseProfile({ commit: 'x', profile: SERVER }, 'a')).toEqual(server());
    expect(parseProfile({ command: 'x', result: { profile: SERVER } }, 'a')).toEqual(server());
  });

  it.each<[string, unknown, RegExp]>([
    ['nothing', null, /m\.json: the profile: /],
    ['no cores', { ...SERVER, cpu: { isa: 'avx2' } }, /m\.json: cpu\.cores: /],
    ['an unknown instruction set', { ...SERVER, cpu: { isa: 'sse', cores: 1 } }, /cpu\.isa: .*avx2/],
    ['a bandwidth below 0', { ...SERVER, memory: { bytes: 1e9, bandwidth: -1 } }, /memory\.bandwidth: /],
    [
      'gigabytes where bytes are meant',
      { ...SERVER, memory: { bytes: 64, bandwidth: 1e9 } },
      /memory\.bytes: .*counts bytes/,
    ],
    ['a device twice', { ...SERVER, gpus: [CARD, CARD] }, /gpus: two have the same device/],
    ['a misspelt field', { ...SERVER, gpu: [] }, /gpu/],
    ['a device that is no device', { ...SERVER, gpus: [{ ...CARD, device: 'cuda' }] }, /gpus\.0\.device: .*cuda:0/],
  ])('%s is refused by the field', (_, json, message) => {
    expect(() => parseProfile(json, 'm.json')).toThrow(
      expect.objectContaining({ code: 'REQUEST_INVALID', message: expect.stringMatching(message) }),
    );
  });
});

describe('where a model goes', () => {
  it('the server of the papers: experts in memory, the rest on the card', () => {
    const found = fitModel(v3, server({ gpus: [CARD] }));
    expect(found).toMatchObject({ kind: 'hybrid', fits: 'memory', inMemory: 1, gpuLayers: 0 });
    expect(found.ram).toBeGreaterThan(390 * GB);
    expect(found.vram).toBeGreaterThan(9 * GB);
    expect(found.vram).toBeLessThanOrEqual(found.vramLimit);
    expect(found.context).toBeGreaterThan(16384);
    expect(found.reason).toMatch(/the VRAM \(22\.8 GB\) holds dense weights, cache and no experts; 394 GB of experts/);
  });

  it('without a card all in memory; too little of it: the disk; too little for the dense part: nothing', () => {
    expect(fitModel(v3, server())).toMatchObject({ kind: 'cpu', fits: 'memory' });
    const disk = fitModel(v3, withMemory(64 * GB));
    expect(disk).toMatchObject({ kind: 'cpu', fits: 'disk' });
    expect(disk.inMemory).toBeGreaterThan(0);
    expect(disk.inMemory).toBeLessThan(0.2);
    expect(fitModel(v3, withMemory(8 * GB))).toMatchObject({
      fits: 'no',
      reason: expect.stringMatching(/it needs \d.* GB of memory at least, 8\.00 GB are available/),
    });
    expect(fitModel(llama, withMemory(4 * GB))).toMatchObject({ fits: 'no' }); // no experts that could stay on the disk
  });

  it('a small model is all on the card; layers of experts go there as far as there is room', () => {
    expect(fitModel(lite, server({ gpus: [CARD] }))).toMatchObject({
      kind: 'gpu',
      gpuLayers: 26,
      vram: expect.any(Number),
    });
    const some = fitModel(lite, server({ gpus: [CARD] }), { vram: 8 * GB, context: 4096 });
    expect(some.kind).toBe('hybrid');
    expect(some.gpuLayers).toBeGreaterThan(2);
    expect(some.vram).toBeLessThanOrEqual(8 * GB);
    expect(fitModel(lite, server({ gpus: [CARD] }), { vram: 0.5 * GB })).toMatchObject({
      kind: 'cpu',
      vram: 0,
      reason: expect.stringMatching(/^dense weights and cache exceed the 500 MB of VRAM/),
    });
  });

  it('a budget goes before what there is', () => {
    expect(fitModel(lite, server(), { ram: 9 * GB })).toMatchObject({ fits: 'disk', ramLimit: 9 * GB });
    expect(fitModel(lite, server({ container: { memory: 3 * GB } }))).toMatchObject({ fits: 'disk' });
  });

  it('a context that the model does not have is refused', () => {
    expect(() => fitModel(lite, server(), { context: 10 ** 6 })).toThrow(
      /the context is 1 to 163840 tokens; 1000000 were/,
    );
  });

  it('never takes more than there is, and says the same needs whatever there is', () => {
    const sizes = fc.record({
      ram: fc.double({ min: 0.5, max: 600, noNaN: true }),
      vram: fc.double({ min: 0.1, max: 80, noNaN: true }),
      context: fc.option(fc.integer({ min: 1, max: 163840 }), { nil: undefined }),
      card: fc.boolean(),
      big: fc.boolean(),
    });
    fc.assert(
      fc.property(sizes, ({ ram, vram, context, card, big }) => {
        const machine = withMemory(ram * GB, card ? { gpus: [{ ...CARD, memoryBytes: vram * GB }] } : {});
        const found = fitModel(big ? v3 : lite, machine, { context });
        if (found.fits === 'memory') expect(found.ram).toBeLessThanOrEqual(found.ramLimit);
        if (found.fits !== 'no') expect(found.leastRam).toBeLessThanOrEqual(found.ramLimit);
        expect(found.vram).toBeLessThanOrEqual(found.vramLimit);
        const { weightBytes } = sizesOf(big ? v3 : lite);
        expect(found.ram + found.vram).toBeGreaterThanOrEqual((weightBytes + found.kv) * (1 - 1e-9));
        expect(found.leastRam).toBeLessThanOrEqual(found.ram * (1 + 1e-9));
        if (context !== undefined) expect(found.context).toBe(context);
        expect(found.inMemory).toBeGreaterThanOrEqual(0);
        expect(found.inMemory).toBeLessThanOrEqual(1);
      }),
    );
  });
});

const RANK = { no: 0, disk: 1, memory: 2 };
function decodeRate(program: Program, machine: MachineProfile, context = 512): number {
  const { fit, placed } = placedFor(program, sizesOf(program), machine, { context: 4096 });
  return fit.fits === 'no' ? 0 : predictDecode(placed, machine, { context }).tokensPerSecond.expected;
}

describe('predictions', () => {
  it('of the server of the papers have what engines reached in their range', () => {
    const { decode, prefill } = plan(v3, server({ gpus: [CARD] }), { context: 8192 });
    // KTransformers 12.2 decode; 255 to 286 prefill with AMX.
    expect(decode!.tokensPerSecond.low).toBeLessThan(12.2);
    expect(decode!.tokensPerSecond.high).toBeGreaterThan(12.2);
    expect(prefill!.tokensPerSecond.low).toBeLessThan(286);
    expect(prefill!.tokensPerSecond.high).toBeGreaterThan(255);
    expect(decode!.bottleneck).toBe('experts in memory');
  });

  it('more memory, bandwidth or budget is never worse; a longer context never faster', () => {
    const pair = fc.tuple(fc.double({ min: 1, max: 700, noNaN: true }), fc.double({ min: 1, max: 700, noNaN: true }));
    fc.assert(
      fc.property(pair, fc.boolean(), fc.boolean(), (values, big, card) => {
        const [less, more] = [Math.min(...values), Math.max(...values)];
        const sizes = big ? v3 : lite;
        const gpus = card ? { gpus: [CARD] } : {};
        const [poor, rich] = [less, more].map((ram) => withMemory(ram * GB, gpus));
        expect(RANK[fitModel(sizes, poor, { context: 4096 }).fits]).toBeLessThanOrEqual(
          RANK[fitModel(sizes, rich, { context: 4096 }).fits],
        );
        expect(decodeRate(sizes, poor)).toBeLessThanOrEqual(decodeRate(sizes, rich) * (1 + 1e-9));
        const [slow, fast] = [less, more].map((rate) =>
          server({ ...gpus, memory: { ...SERVER.memory, bandwidth: rate * GB } }),
        );
        expect(decodeRate(sizes, slow)).toBeLessThanOrEqual(decodeRate(sizes, fast) * (1 + 1e-9));
        const [near, far] = [less, more].map((n) => Math.round(n * 5));
        expect(decodeRate(sizes, server(gpus), far)).toBeLessThanOrEqual(
          decodeRate(sizes, server(gpus), near) * (1 + 1e-9),
        );
      }),
      { numRuns: 20 },
    );
  });

  it('a batch is faster than one after the other, slower than one alone', () => {
    const placed = place(v3, server(), { context: 4096 });
    const one = predictDecode(placed, server(), { context: 512 });
    const eight = predictDecode(placed, server(), { context: 512, batch: 8 });
    expect(eight.tokensPerSecond.expected).toBeGreaterThan(one.tokensPerSecond.expected);
    expect(eight.seconds).toBeGreaterThan(one.seconds);
    expect(eight.seconds).toBeLessThan(8 * one.seconds);
  });

  it('parts explain the whole: on the processor they add up', () => {
    for (const sizes of [v3, lite, llama]) {
      const { decode, prefill } = plan(sizes, server(), { context: 2048 });
      for (const made of [decode!, prefill!])
        expect(Object.values(made.parts).reduce((a, b) => a + b)).toBeCloseTo(made.seconds, 9);
    }
  });

  it('long prompts go through the card where that is faster, in the largest passes', () => {
    const machine = server({ cpu: { isa: 'avx2', cores: 16 }, gpus: [CARD] });
    const placed = place(v3, machine, { context: 16384 });
    expect(predictPrefill(placed, machine, { prompt: 8192, rows: 8192 })).toMatchObject({ streamed: true, rows: 8192 });
    expect(predictPrefill(placed, machine, { prompt: 16, rows: 8192 }).streamed).toBe(false);
  });

  it('a prompt goes in passes of the size that the engine settles on', () => {
    const passes: number[] = [];
    const settling = {
      rows: 2048,
      measured(rows: number, milliseconds: number) {
        passes.push(milliseconds);
        this.rows = Math.max(64, Math.floor((rows * 1500) / milliseconds));
      },
    };
    const slow = server({ cpu: { isa: 'avx2', cores: 2 } });
    const placed = place(v3, slow, { context: 4096 });
    const made = predictPrefill(placed, slow, { prompt: 1000, passSize: settling });
    expect(made.rows).toBeLessThan(200);
    expect(passes[0]).toBeGreaterThan(passes[passes.length - 1]);
    const whole = predictPrefill(placed, slow, { prompt: 1000 });
    expect(whole.rows).toBe(1000);
    expect(made.seconds).toBeGreaterThan(whole.seconds); // few rows read all experts for little
  });

  it('measured kernels go before guesses; formats that were not measured follow those that were', () => {
    const kernels = {
      matrices: [
        {
          op: 'linear' as const,
          format: 'q4_k' as const,
          costs: [
            [1, 1e-11],
            [64, 3e-10],
            [256, 9e-10],
          ] as [number, number][],
        },
      ],
      attention: [],
      small: { step: 0, value: 0 },
      pass: 0,
    };
    const machine = { ...server(), kernels };
    const work = {
      op: 'linear',
      role: 'dense',
      format: 'q4_k',
      weights: 1e9,
      bytes: 5e8,
      experts: 1,
      chosen: 1,
    } as const;
    expect(matrixSeconds(work, 1, machine)).toBeCloseTo(0.01, 12);
    expect(matrixSeconds(work, 64, machine)).toBeCloseTo(0.3, 12);
    expect(matrixSeconds(work, 160, machine)).toBeCloseTo(0.6, 9);
    expect(matrixSeconds(work, 352, machine)).toBeCloseTo(1.2, 9);
    const other = { ...work, format: 'q8_0' } as const;
    const ratio = matrixSeconds(other, 1, server()) / matrixSeconds(work, 1, server());
    expect(matrixSeconds(other, 1, machine) / 0.01).toBeCloseTo(ratio, 9);
  });
});

describe('what rules place', () => {
  const machine = () => server({ gpus: [CARD] });
  const shipped = (name: string) =>
    parseRulesFile(readFileSync(new URL(`../../rules/${name}.yaml`, import.meta.url), 'utf8'), `${name}.yaml`);
  const request = { context: 8192 };
  const rates = (made: Plan) => [made.decode!, made.prefill!].map(({ tokensPerSecond }) => tokensPerSecond.expected);

  it('rules that say what the automatic placement says are predicted alike', () => {
    const long = { context: 98304 }; // so long that no layer of experts has room beside it
    const own = plan(v3, machine(), { ...long, rules: shipped('deepseek-v3-24gb') });
    const automatic = plan(v3, machine(), long);
    expect(automatic.fit).toMatchObject({ kind: 'hybrid', fits: 'memory', gpuLayers: 0 });
    expect(rates(own)).toEqual(rates(automatic));
    expect(own.fit).toMatchObject({ kind: 'hybrid', fits: 'memory', gpuLayers: 0, context: 98304 });
    expect(Math.abs(own.fit.vram / automatic.fit.vram - 1)).toBeLessThan(0.1);
    expect(own.fit.reason).toMatch(/^by the rules the memory holds 39\d GB, cuda:0 holds 1\d\.\d GB$/);
  });

  it('everything on the processor takes no VRAM and is slower than beside a card', () => {
    const own = plan(v3, machine(), { ...request, rules: shipped('cpu') });
    expect(own.fit).toMatchObject({ kind: 'cpu', vram: 0, fits: 'memory' });
    const alone = plan(v3, server(), request);
    expect(rates(own)).toEqual(rates(alone));
    expect(rates(own)[0]).toBeLessThan(rates(plan(v3, machine(), request))[0]);
  });

  it('more on a card than it holds does not fit, and says how much it is', () => {
    const own = plan(v3, machine(), { ...request, rules: shipped('gpu-only') });
    expect(own).toMatchObject({ fit: { fits: 'no' }, bottleneck: 'memory is too small' });
    expect(own.decode).toBeUndefined();
    expect(own.fit.reason).toMatch(/^the rules put 40\d GB on cuda:0 \(weights 40\d GB, .*\), 22\.8 GB of it can be filled$/); // biome-ignore format: one line
    const two = { ...machine(), gpus: [0, 1].map((i) => ({ ...machine().gpus[0], device: `cuda:${i}` })) };
    expect(plan(lite, two, { rules: shipped('gpu-only') }).fit).toMatchObject({ fits: 'memory', kind: 'gpu' });
    expect(plan(lite, two, { rules: shipped('gpu-only'), vram: 4 * GB }).fit).toMatchObject({
      fits: 'no',
      reason: expect.stringMatching(/^the rules put 1\d\.\d GB on GPUs .*, 4\.00 GB of it can be filled$/),
    });
  });

  it('without a context: as long as the fullest device allows', () => {
    const small = server({ gpus: [{ ...CARD, memoryBytes: 16 * GB }] });
    const rules = shipped('deepseek-v3-24gb');
    const { fit } = plan(v3, small, { rules });
    expect(fit).toMatchObject({ fits: 'memory', kind: 'hybrid' });
    expect(fit.context).toBeGreaterThan(8192);
    expect(fit.vram).toBeLessThan(fit.vramLimit);
    expect(plan(v3, small, { rules, context: 2 * fit.context }).fit.fits).toBe('no');
  });

  it('experts that exceed the memory come from the disk', () => {
    const little = withMemory(100 * GB, { gpus: [CARD] });
    const own = plan(v3, little, { ...request, rules: shipped('one-gpu') });
    expect(own.fit.fits).toBe('disk');
    expect(own.bottleneck).toBe('reads of the disk');
    expect(own.decode!.seconds).toBeCloseTo(plan(v3, little, request).decode!.seconds, 1);
  });

  it('experts of some layers on a card: less for the processor to read', () => {
    const some = parseRules([
      { match: { op: 'experts', layers: '1-13' }, place: { device: 'cuda:0' } },
      { match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } },
      { place: { device: 'cuda:0' } },
    ]);
    const half = plan(lite, machine(), { ...request, rules: some, hotExperts: 'off' });
    const none = plan(lite, machine(), { ...request, rules: shipped('one-gpu'), hotExperts: 'off' });
    expect(half.fit).toMatchObject({ kind: 'hybrid', gpuLayers: 13 });
    expect(half.decode!.parts['experts in memory'] / none.decode!.parts['experts in memory']).toBeCloseTo(0.5, 1);
    expect(rates(half)[0]).toBeGreaterThan(rates(none)[0]);
  });

  it('ways that are forbidden cost time, the definition most of it', () => {
    const rate = (place: PlaceDescription) => rates(plan(lite, server(), { ...request, rules: parseRules([{ match: { op: ['linear', 'experts'] }, place }]) })); // biome-ignore format: one thought a line
    const [decode, prefill] = rate({ tiles: 'auto' });
    const [slowly, without] = rate({ tiles: 'off' });
    expect(slowly).toBeCloseTo(decode, 9);
    expect(without).toBeLessThan(prefill / 2);
    const [defined] = rate({ kernel: 'reference' });
    expect(defined).toBeLessThan(decode / 100);
    const rules = parseRules([{ prefill: { tiles: 'off' } }]);
    expect(rates(plan(lite, server(), { ...request, rules }))[0]).toBeCloseTo(decode, 9);
    expect(rates(plan(lite, server(), { ...request, rules }))[1]).toBeLessThan(prefill / 2);
  });

  it('a device that is not there is refused, naming rule and step', () => {
    expect(() => plan(lite, server(), { rules: shipped('one-gpu') })).toThrow(
      /a step is placed on a device of this machine: cpu; one-gpu\.yaml:\d+ places .* on cuda:0/,
    );
  });

  it('late experts: faster beside a card, not faster without one, never faster than their own reading', () => {
    const late = (on: MachineProfile, deferExperts: number) =>
      plan(v3, on, { ...request, deferExperts, hotExperts: 'off' }).decode!;
    const [now, some, most] = [0, 3, 7].map((count) => late(machine(), count));
    expect(some.seconds).toBeLessThan(now.seconds);
    expect(most.seconds).toBeLessThanOrEqual(some.seconds * (1 + 1e-9));
    for (const { seconds, parts } of [some, most]) {
      expect(parts['experts in memory']).toBeCloseTo(now.parts['experts in memory'], 9);
      expect(seconds).toBeGreaterThan(parts['experts in memory']);
      expect(seconds).toBeGreaterThan(parts['memory of the GPU']);
    }
    expect(late(server(), 3).seconds).toBeGreaterThanOrEqual(late(server(), 0).seconds);
    expect(plan(v3, machine(), { ...request, deferExperts: 3 }).fit).toEqual(plan(v3, machine(), request).fit);
  });
});

describe('the list on clocks', () => {
  it('beside a card it is the formula of physics: shared experts beside the routed, all else one after the other', () => {
    const machine = server({ gpus: [CARD] });
    const sizes = sizesOf(v3);
    const placed = place(v3, machine, { context: 8192 });
    const { parts, seconds } = predictDecode(placed, machine, { context: 512 });
    const memory = CARD.bandwidth * 0.75;
    const on = (bytes: number) => ({ bytes, bandwidth: memory });
    const routed = parts['experts in memory'];
    const formula = decodeSharedBeside({
      routed: { bytes: routed, bandwidth: 1 },
      shared: on(sizes.sharedPerToken),
      rest: on(sizes.densePerToken - sizes.sharedPerToken),
      cache: on(512 * sizes.kvBytesPerToken),
    });
    // Launches and hand-overs come on top: some four microseconds a step, forty a layer.
    const around = parts['steps without weights'] + parts['hand-over to the GPU'];
    expect(seconds).toBeGreaterThan(formula);
    expect(seconds).toBeLessThan(formula + around + placed.decode.steps.length * 4e-6);
  });
});
