import { describe, expect, test } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { OPS } from '../ops/index.ts';
import { lower } from '../placement/lower.ts';
import { parseRules } from '../placement/rules-file.ts';
import type { Program, Step } from './program.ts';
import { tasksOf } from './tasks.ts';
import { validateProgram } from './validate.ts';

const machine = { device: 'cpu', devices: [{ name: 'cpu' }, { name: 'cuda:0' }] } as const;
const rules = parseRules([
  { match: { op: ['experts', 'embed'] }, place: { device: 'cpu' } },
  { place: { device: 'cuda:0' } },
]);
const { program } = tinyProgram({
  seed: 1,
  layers: [
    ['gqa', 'experts'],
    ['mla', 'experts'],
  ],
});
const placed = lower(program, machine, { rules });

function without(which: (step: Step) => boolean): Program {
  return { ...placed, steps: placed.steps.filter((step) => !which(step)) };
}
function changed(name: string, change: (step: Step) => Partial<Step>): Program {
  if (!placed.steps.some((step) => step.name === name)) throw new Error(`no step ${name}`);
  return { ...placed, steps: placed.steps.map((step) => (step.name === name ? { ...step, ...change(step) } : step)) };
}
function moved(name: string, before: string): Program {
  const step = placed.steps.find((each) => each.name === name)!;
  const rest = placed.steps.filter((each) => each !== step);
  const at = rest.findIndex((each) => each.name === before);
  return { ...placed, steps: [...rest.slice(0, at), step, ...rest.slice(at)] };
}
const on = (device: string) => (step: Step) => ({ placement: { ...step.placement!, device } });

test('two layers are two tasks, each with its experts', () => {
  validateProgram(placed, OPS);
  const tasks = tasksOf(placed);
  expect(tasks.map(({ task, first, end }) => [task, placed.steps.slice(first, end).map(({ name }) => name)])).toEqual([
    [0, ['layers.0.experts']],
    [1, ['layers.1.experts']],
  ]);
  for (const { wait } of tasks) expect(placed.steps[wait].op).toBe('wait');
});

describe('a Program is refused', () => {
  test.each<[string, Program, string]>([
    [
      'where a step reads from another device',
      changed('layers.0.norm_1', on('cpu')),
      'step layers.0.norm_1 (rms-norm) on cpu reads embed.to.cuda:0, which lies on cuda:0',
    ],
    ['where a copy stays at home', changed('embed.to.cuda:0', on('cpu')), 'a copy goes to another device'],
    [
      'where a task is never waited for',
      without(({ name }) => name === 'layers.0.experts.wait'),
      'each submitted and then waited for once; tasks 0, 1, waits 1',
    ],
    [
      'where a wait waits for nothing',
      without(({ name }) => name === 'layers.0.experts.submit'),
      'tasks 1, waits 0, 1',
    ],
    [
      'where a task has a number twice',
      changed('layers.1.experts.submit', () => ({ attributes: { task: 0, steps: 1 } })),
      'tasks 0, 0, waits 0, 1',
    ],
    [
      'where a task has no steps',
      changed('layers.0.experts.submit', () => ({ attributes: { task: 0, steps: 0 } })),
      'submit.steps is a whole number above 0',
    ],
    [
      'where a task reaches too far',
      changed('layers.0.experts.submit', () => ({ attributes: { task: 0, steps: 2 } })),
      'a task is made of steps on cpu; step layers.0.experts.wait (wait)',
    ],
    [
      'where a task goes on past the end',
      changed('layers.1.experts.submit', () => ({ attributes: { task: 1, steps: 99 } })),
      'a task is made of steps on cpu',
    ],
    [
      'where a result is read before its wait',
      moved('layers.0.experts.wait', 'layers.0.add_2'),
      'what a task computes is read after its wait; step layers.0.experts.to.cuda:0 (copy) reads layers.0.experts',
    ],
    [
      'where a wait comes first',
      moved('layers.0.experts.wait', 'layers.0.experts.submit'),
      'a task is submitted before it is waited for; task 0',
    ],
    [
      'where the CPU reads what an accelerator may not have sent',
      without(({ op, attributes }) => (op === 'submit' || op === 'wait') && attributes.task === 1),
      'what an accelerator sends is read by a task; step layers.1.experts (experts) reads layers.1.norm_2.to.cpu, and no submit stands between',
    ],
  ])('%s', (_, broken, message) => {
    expect(() => validateProgram(broken, OPS)).toThrow(expect.objectContaining({ code: 'PROGRAM_INVALID' }));
    expect(() => validateProgram(broken, OPS)).toThrow(message);
  });
});

test('a Program without places has no devices to respect', () => {
  const bare = { ...program, steps: program.steps.map(({ placement: _, ...step }) => step) };
  expect(validateProgram(bare, OPS)).toBe(bare);
});
