/** Deferred experts beside a GPU: what waits for what, in which buffers, and the list itself. */
import { beforeAll, describe, expect, test } from 'vitest';
import { withDeferredExperts } from '../../src/models/deferred-experts.ts';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower, type Machine } from '../../src/placement/lower.ts';
import type { Rule } from '../../src/placement/rule.ts';
import { planBuffers } from '../../src/program/buffers.ts';
import { printStep } from '../../src/program/print.ts';
import type { Program } from '../../src/program/program.ts';
import { tasksOf } from '../../src/program/tasks.ts';
import { validateProgram } from '../../src/program/validate.ts';

const MACHINE: Machine = { device: 'cpu', devices: [{ name: 'cpu' }, { name: 'cuda:0' }] };
/** As `auto` has it: experts on the processor, all else on the GPU. */
const HYBRID: Rule[] = [
  { match: { op: ['embed', 'sample', 'experts'] }, place: { device: 'cpu' }, origin: 'cpu' },
  { match: {}, place: { device: 'cuda:0' }, origin: 'gpu' },
];

async function deepseek(change: object = {}): Promise<Program> {
  const config = { ...PUBLIC_CONFIGS['deepseek-v3'], ...change };
  return (await buildProgram(await headerCheckpoint(config, { name: 'deepseek-v3', mix: 'q4_k_m' }))).program;
}

let program: Program;
beforeAll(async () => {
  program = await deepseek();
});

const onDevices = (given: Program) => lower(given, MACHINE, { rules: HYBRID });

/** Index of the first step of that name. */
function at(placed: Program, name: string): number {
  const index = placed.steps.findIndex((step) => step.name === name);
  expect(index, name).toBeGreaterThanOrEqual(0);
  return index;
}

describe('beside a GPU', () => {
  let placed: Program;
  beforeAll(() => {
    placed = validateProgram(onDevices(withDeferredExperts(program, 3)), OPS);
  });

  test('late experts are a task of their own, waited for behind the next layer’s attention and hand-over', () => {
    const tasks = tasksOf(placed);
    for (let layer = 3; layer < 60; layer++) {
      const task = tasks.find(
        ({ first }) => placed.steps[first].name === `model.layers.${layer}.mlp.experts.deferred`,
      )!;
      expect(task.end).toBe(task.first + 1);
      const next = `model.layers.${layer + 1}`;
      expect(task.wait).toBeGreaterThan(at(placed, `${next}.self_attn.mla`));
      expect(task.wait).toBeGreaterThan(at(placed, `${next}.mlp.experts`));
      // Nobody waits longer than for the next layer's own.
      expect(task.wait).toBeLessThanOrEqual(at(placed, `${next}.mlp.experts.to.cuda:0`));
    }
    expect(tasks.some(({ first }) => placed.steps[first].name.startsWith('model.layers.60.') && first > 0)).toBe(true);
    expect(placed.steps.some(({ name }) => name === 'model.layers.60.mlp.experts.deferred')).toBe(false);
  });

  test('the experts of a layer are in time: their wait lies before the next layer', () => {
    for (const { first, wait } of tasksOf(placed)) {
      const { name, layer } = placed.steps[first];
      if (name.endsWith('.deferred') || layer < 0 || layer === 60) continue;
      expect(wait).toBeLessThan(at(placed, `model.layers.${layer + 1}.input_layernorm`));
    }
  });

  test('the CPU adds what is late by itself: no more copies than without', () => {
    const copies = ({ steps }: Program) => steps.filter(({ op }) => op === 'copy').length;
    expect(copies(placed)).toBe(copies(onDevices(program)));
    for (const { name, placement } of placed.steps)
      if (name.endsWith('.experts.sum')) expect(placement?.device).toBe('cpu');
  });

  test('choices are put in order where they are made: a GPU that holds experts knows which come late', () => {
    const ranks = placed.steps.filter(({ op }) => op === 'rank-experts');
    expect(ranks).toHaveLength(57);
    expect(new Set(ranks.map(({ placement }) => placement?.device))).toEqual(new Set(['cuda:0']));
  });

  test('buffers by turns hold what is late, as many for 58 layers as for 5', async () => {
    const wide = (given: Program) =>
      planBuffers(given).slots.filter(({ device, columns }) => device === 'cpu' && columns === 7168).length;
    const { slotOf } = planBuffers(placed);
    const late = placed.values.filter(({ name }) => name.endsWith('.experts.deferred')).map(({ id }) => slotOf[id]);
    expect(late).toHaveLength(57);
    for (let i = 1; i < late.length; i++) expect(late[i]).not.toBe(late[i - 1]);
    const few = await deepseek({ num_hidden_layers: 8 });
    expect(wide(placed)).toBe(wide(onDevices(withDeferredExperts(few, 3))));
    // What two layers' tasks touch at once: inputs, late sums, what is in time, the sum of both. Without: an input and a sum.
    expect([wide(onDevices(program)), wide(placed)]).toEqual([2, 6]);
  });

  test('two layers of the list', async () => {
    const lines = placed.steps
      .filter(({ layer }) => layer === 10 || layer === 11)
      .map((step) => printStep(placed, step));
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot('deferred.deepseek-v3.txt');
  });
});

test('on the CPU alone the list has neither tasks nor copies', () => {
  const placed = lower(withDeferredExperts(program, 3), { device: 'cpu' });
  expect(placed.steps.filter(({ op }) => ['copy', 'submit', 'wait'].includes(op))).toEqual([]);
  validateProgram(placed, OPS);
});
