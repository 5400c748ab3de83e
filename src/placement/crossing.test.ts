/** Laws of programs on several devices, over random placements: nothing lost, nothing early, nothing overwritten. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { random } from '../../test/conformance/random.ts';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { referenceBackend } from '../backend/reference.ts';
import { withDeferredExperts } from '../models/deferred-experts.ts';
import { OPS } from '../ops/index.ts';
import { planBuffers } from '../program/buffers.ts';
import { printProgram } from '../program/print.ts';
import type { Program, Step } from '../program/program.ts';
import { tasksOf } from '../program/tasks.ts';
import { validateProgram } from '../program/validate.ts';
import { connect } from './crossing.ts';
import { checkDeviceMemory, memoryByDevice } from './device-memory.ts';
import { lower, type Machine } from './lower.ts';
import type { Rule } from './rule.ts';

const DEVICES = ['cpu', 'cuda:0', 'cuda:1'];
const MACHINE: Machine = { device: 'cpu', devices: DEVICES.map((name) => ({ name })) };
const { program, checkpoint } = tinyProgram({
  seed: 3,
  layers: [
    ['gqa', 'dense'],
    ['mla', 'experts'],
    ['gqa', 'experts'],
  ],
});
const deferring = withDeferredExperts(program, 1);

const escaped = (name: string) => name.replace(/[.]/g, '\\.');

/** A rule for each step. */
function rulesOf(devices: readonly string[], { steps }: Program = program): Rule[] {
  return steps.map(({ name }, index) => ({
    match: { name: new RegExp(`^${escaped(name)}$`) },
    place: { device: devices[index] },
    origin: `rules[${index}]`,
  }));
}

/** A device for each step. */
function devicesOf({ steps }: Program) {
  return fc.array(fc.constantFrom(...DEVICES), { minLength: steps.length, maxLength: steps.length });
}

function lowered(program: Program, names: readonly string[]): Program {
  return lower(program, MACHINE, { rules: rulesOf(names, program), activations: 'f32' });
}

const isBetween = ({ op }: Step) => op === 'copy' || op === 'submit' || op === 'wait';

/**
 * What each buffer holds while the steps run. Tasks of the CPU run step by step whenever `pace` says so (how many of the
 * steps that are due, for each other step), and at the latest where somebody waits.
 */
function expectNothingOverwritten(placed: Program, pace: (due: number) => number): void {
  const { slotOf } = planBuffers(placed);
  const holds = new Map<number, number>();
  const run = (step: Step) => {
    for (const input of step.inputs)
      if (input?.kind === 'value') expect(holds.get(slotOf[input.value]), `${step.name} reads`).toBe(input.value);
    for (const id of step.outputs) holds.set(slotOf[id], id);
  };
  const tasks = tasksOf(placed);
  const due: { readonly step: Step; readonly wait: number }[] = [];
  placed.steps.forEach((step, index) => {
    const own = tasks.find(({ first, end }) => index >= first && index < end);
    if (own) {
      due.push({ step, wait: own.wait });
      return;
    }
    const at = due.findLastIndex(({ wait }) => wait === index) + 1;
    for (const { step: late } of due.splice(0, Math.max(at, pace(due.length)))) run(late);
    run(step);
  });
  expect(due).toEqual([]);
  expect(holds.get(slotOf[placed.logits])).toBe(placed.logits);
}

describe.each([
  ['a model as it is', program],
  ['with deferred experts', deferring],
] as const)('any placement of %s', (_, program) => {
  const devices = devicesOf(program);
  const onDevices = (names: readonly string[]) => lowered(program, names);

  test('places every step once, copies what crosses, keeps the order of the data', () => {
    fc.assert(
      fc.property(devices, (names) => {
        const placed = onDevices(names);
        validateProgram(placed, OPS);
        const found = placed.steps.filter((step) => !isBetween(step)).map(({ name }) => name);
        expect(found.toSorted()).toEqual(program.steps.map(({ name }) => name).toSorted());
        const copies = placed.steps.filter(({ op }) => op === 'copy').map(({ name }) => name);
        expect(new Set(copies).size).toBe(copies.length);
        for (const { placement } of placed.steps) expect(placement?.origin).toBeTruthy();
      }),
      { numRuns: 60 },
    );
  });

  test('no buffer is overwritten while somebody reads it, whenever the CPU gets to its tasks', () => {
    fc.assert(
      fc.property(devices, fc.integer({ min: 1 }), (names, seed) => {
        const placed = onDevices(names);
        const next = random(seed);
        expectNothingOverwritten(placed, () => 0);
        expectNothingOverwritten(placed, (due) => due);
        expectNothingOverwritten(placed, (due) => Math.floor(next() * (due + 1)));
      }),
      { numRuns: 60 },
    );
  });

  test('buffers of a device hold values of that device alone', () => {
    fc.assert(
      fc.property(devices, (names) => {
        const placed = onDevices(names);
        const { slots, slotOf } = planBuffers(placed);
        for (const { outputs, placement } of placed.steps)
          for (const id of outputs) expect(slots[slotOf[id]].device ?? placement!.device).toBe(placement!.device);
      }),
      { numRuns: 20 },
    );
  });

  test('a device holds the weights of its steps once, its buffers and its layers of the cache, and nothing else', () => {
    fc.assert(
      fc.property(devices, fc.nat(20), (names, pages) => {
        const placed = onDevices(names);
        const { slots } = planBuffers(placed);
        const alone = new Set(names).size === 1;
        for (const { device, weights, buffers, kernels, pageBytes, total } of memoryByDevice(placed, {
          pages,
          maxRows: 64,
          maxOutputs: 8,
        })) {
          const own = slots.filter((slot) => alone || slot.device === device);
          expect(buffers).toBe(own.reduce((sum, { rows, columns }) => sum + 4 * columns * (rows === 'T' ? 64 : 8), 0));
          expect(kernels > 0).toBe(device !== 'cpu');
          expect(total).toBe(weights + buffers + kernels + pages * pageBytes);
        }
      }),
      { numRuns: 20 },
    );
  });

  test('what fits a budget is accepted, one byte less is refused with the device', () => {
    fc.assert(
      fc.property(devices, fc.nat(20), (names, pages) => {
        const placed = onDevices(names);
        const request = { pages, maxRows: 64, maxOutputs: 8 };
        const needs = memoryByDevice(placed, request);
        const with_ = (change: number): Machine => ({
          device: 'cpu',
          devices: needs.map(({ device, total }) => ({ name: device, memory: total + change })),
        });
        expect(checkDeviceMemory(placed, with_(0), request)).toEqual(needs);
        expect(() => checkDeviceMemory(placed, with_(-1), request)).toThrow(`what lies on ${needs[0].device} fits its`);
      }),
      { numRuns: 20 },
    );
  });

  test('computes the same bits on the reference', async () => {
    const batches = [
      batchOf([
        { tokens: [1, 2, 3, 4, 5], pages: [0] },
        { tokens: [7, 8], pages: [1] },
      ]),
      batchOf([
        { tokens: [6], firstPosition: 5, pages: [0] },
        { tokens: [9], firstPosition: 2, pages: [1] },
      ]),
    ];
    const answers = async (placed: Program) => {
      const limits = { pages: 2, maxRows: 8, maxOutputs: 8 };
      await using executable = await referenceBackend().prepare(placed, checkpoint, limits);
      const results = [];
      for (const batch of batches) results.push(await executable.run(batch));
      return results.map(({ logits, tokens }) => ({ logits, tokens }));
    };
    const alone = await answers(lower(program, MACHINE, { activations: 'f32' }));
    await fc.assert(
      fc.asyncProperty(devices, async (names) => {
        expect(await answers(onDevices(names))).toEqual(alone);
      }),
      { numRuns: 8 },
    );
  });
});

test('a weight that two devices read lies on both, and the whole is the sum of its parts', () => {
  const all = lower(program, MACHINE);
  const [alone] = memoryByDevice(all, { pages: 2, maxRows: 8, maxOutputs: 8 });
  const rules = rulesOf(program.steps.map(({ op }) => (op === 'experts' ? 'cpu' : 'cuda:0')));
  const split = memoryByDevice(lower(program, MACHINE, { rules }), { pages: 2, maxRows: 8, maxOutputs: 8 });
  expect(split.map(({ device }) => device)).toEqual(['cpu', 'cuda:0']);
  expect(split[0].weights + split[1].weights).toBe(alone.weights);
  expect(split[0].pageBytes).toBe(0);
  expect(split[1].pageBytes).toBe(alone.pageBytes);
});

/** Names alone: what runs when. */
function orderOf(placed: Program): string[] {
  return placed.steps.map(({ op, name, placement }) => (op === name ? name : `${op} ${placement!.device}`));
}

test('independent steps stand between submit and wait, wherever the model has them', () => {
  // x → router → experts (cpu), x → shared (cuda:0), both → add; the shared one before or after.
  for (const sharedFirst of [true, false]) {
    const value = (id: number) => ({ kind: 'value' as const, value: id, start: 0, columns: 4 });
    const step = (op: string, inputs: number[], output: number, device: string): Step => ({
      op,
      name: op,
      layer: 0,
      inputs: inputs.map(value),
      outputs: [output],
      attributes: {},
      placement: { device, activation: 'f32' },
    });
    const x = step('x', [], 0, 'cuda:0');
    const shared = step('shared', [0], 1, 'cuda:0');
    const experts = step('experts', [0], 2, 'cpu');
    const sum = step('sum', [1, 2], 3, 'cuda:0');
    const steps = sharedFirst ? [x, shared, experts, sum] : [x, experts, shared, sum];
    const values = [0, 1, 2, 3].map((id) => ({ id, name: `v${id}`, type: 'f32', rows: 'O', columns: 4 }) as const);
    const placed = connect({ ...program, values, steps, logits: 3 });
    expect(orderOf(placed)).toEqual([
      'x',
      'copy cpu',
      'submit cpu',
      'experts',
      'shared',
      'wait cpu',
      'copy cuda:0',
      'sum',
    ]);
  }
});

test('a model on one device stays as it is, in order and text', () => {
  const gpu = lower(program, MACHINE, { rules: [{ match: {}, place: { device: 'cuda:1' }, origin: 'all' }] });
  expect(gpu.steps.map(({ name }) => name)).toEqual(program.steps.map(({ name }) => name));
  expect(printProgram(gpu)).not.toMatch(/copy|submit|@cpu/);
});
