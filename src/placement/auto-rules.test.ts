/** The automatic placement: what it decides, that it fits, and that it says why; refusals with numbers. */
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import type { Program } from '../program/program.ts';
import { autoRules } from './auto-rules.ts';
import { checkDeviceMemory } from './device-memory.ts';
import { type FitRequest, fitModel, type Room } from './fit.ts';
import { lower } from './lower.ts';
import { refuseImpossible } from './refuse.ts';
import { sizesOf } from './sizes.ts';

const GB = 1e9;
let v3: Program;
let lite: Program;
beforeAll(async () => {
  [v3, lite] = await Promise.all(
    (['deepseek-v3', 'deepseek-v2-lite'] as const).map(
      async (name) =>
        (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q4_k_m' }))).program,
    ),
  );
});

function placed(program: Program, room: Room, request: FitRequest = {}) {
  const fit = fitModel(sizesOf(program), room, request);
  const gpus = room.cards.map((_, i) => `cuda:${i}`);
  const rules = autoRules(program, fit, gpus);
  const devices = [{ name: 'cpu', memory: room.ram }, ...gpus.map((name, i) => ({ name, memory: room.cards[i] }))];
  return { fit, rules, devices, program: lower(program, { device: 'cpu', devices }, { rules }) };
}

const deviceOf = ({ steps }: Program, name: RegExp) => steps.find((step) => name.test(step.name))!.placement!;

describe('automatic rules', () => {
  it('without a card there are none', () => {
    expect(autoRules(v3, fitModel(sizesOf(v3), { ram: 500 * GB, cards: [] }), [])).toEqual([]);
    const small = placed(v3, { ram: 500 * GB, cards: [4 * GB] });
    expect(small.rules).toEqual([]);
    expect(small.program.steps.every(({ placement }) => placement!.device === 'cpu')).toBe(true);
  });

  it('experts in memory, the rest on the card, each with its reason', () => {
    const { program } = placed(v3, { ram: 500 * GB, cards: [24 * GB] });
    expect(deviceOf(program, /layers\.20\.mlp\.experts$/)).toMatchObject({
      device: 'cpu',
      origin: expect.stringMatching(
        /^automatic: the VRAM \(22\.8 GB\) holds dense weights, cache and no experts; 394 GB/,
      ),
    });
    expect(deviceOf(program, /layers\.20\.self_attn\.mla$/).device).toBe('cuda:0');
    expect(deviceOf(program, /shared_experts\.up_proj$/).device).toBe('cuda:0');
    expect(deviceOf(program, /embed_tokens$/).device).toBe('cpu');
  });

  it('the first layers of experts go to the card as far as there is room', () => {
    const { program, fit } = placed(lite, { ram: 50 * GB, cards: [8 * GB] }, { context: 4096 });
    expect(fit.gpuLayers).toBeGreaterThan(3);
    expect(deviceOf(program, /layers\.1\.mlp\.experts$/)).toMatchObject({
      device: 'cuda:0',
      origin: `automatic: the VRAM has room for the experts of ${fit.gpuLayers} layers`,
    });
    expect(deviceOf(program, /layers\.26\.mlp\.experts$/).device).toBe('cpu');
  });

  it('several cards share the layers', () => {
    const { program } = placed(v3, { ram: 500 * GB, cards: [12 * GB, 12 * GB] });
    expect(deviceOf(program, /layers\.0\.self_attn\.mla$/).device).toBe('cuda:0');
    expect(deviceOf(program, /layers\.60\.self_attn\.mla$/).device).toBe('cuda:1');
  });

  it('what the user says goes before', () => {
    const room = { ram: 500 * GB, cards: [24 * GB] };
    const fit = fitModel(sizesOf(v3), room);
    const mine = { match: { op: ['mla'] }, place: { device: 'cpu' }, origin: 'rules.yaml:1' };
    const devices = [{ name: 'cpu' }, { name: 'cuda:0' }];
    const program = lower(v3, { device: 'cpu', devices }, { rules: [mine, ...autoRules(v3, fit, ['cuda:0'])] });
    expect(deviceOf(program, /layers\.9\.self_attn\.mla$/)).toMatchObject({ device: 'cpu', origin: 'rules.yaml:1' });
  });

  it('holds the budget of one card, whatever it is: weights, cache and buffers', () => {
    const vram = fc.double({ min: 0.6, max: 90, noNaN: true });
    fc.assert(
      fc.property(vram, fc.integer({ min: 1, max: 32768 }), fc.boolean(), (gigabytes, context, big) => {
        const room = { ram: 600 * GB, cards: [gigabytes * GB] };
        const made = placed(big ? v3 : lite, room, { context, rows: 512 });
        const pages = Math.ceil(context / 64);
        const machine = { device: 'cpu' as const, devices: made.devices };
        expect(() => checkDeviceMemory(made.program, machine, { pages, maxRows: 512, maxOutputs: 64 })).not.toThrow();
      }),
      { numRuns: 30 },
    );
  });
});

describe('refusals', () => {
  const refuse = (program: Program, room: Room, request: FitRequest = {}) => {
    const sizes = sizesOf(program);
    refuseImpossible(sizes, room, request, fitModel(sizes, room, request));
  };

  it('say what is needed, what there is, and which quantization fits', () => {
    expect(() => refuse(v3, { ram: 10 * GB, cards: [] })).toThrow(
      expect.objectContaining({
        code: 'PLACEMENT_IMPOSSIBLE',
        message: expect.stringMatching(
          /^\[placement\] this model needs 40\d GB RAM \(1\d\.\d GB with the experts on the disk\) for a context of 512 tokens; you have 10\.0 GB RAM; no quantization of it fits; /,
        ),
      }),
    );
    expect(() => refuse(lite, { ram: 5 * GB, cards: [] }, { context: 163840 })).toThrow(
      /needs 1\d\.\d GB RAM .*; you have 5\.00 GB RAM; .*or a shorter context/,
    );
  });

  it('name a quantization where one fits', async () => {
    const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['llama-3.1-8b'], { name: 'llama', mix: 'bf16' });
    const { program } = await buildProgram(checkpoint);
    expect(() => refuse(program, { ram: 8 * GB, cards: [] }, { context: 2048 })).toThrow(
      /needs 1\d\.\d GB RAM for a context of 2048 tokens; you have 8\.00 GB RAM; a quantization that fits: q6_k, about 6\.\d+ GB/,
    );
  });

  it('keep silent where experts can stay on the disk', () => {
    expect(() => refuse(v3, { ram: 64 * GB, cards: [] })).not.toThrow();
  });
});
