/** Clocks instead of devices: what runs beside what, and what waits. */
import { describe, expect, test } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import type { Program, Step } from '../program/program.ts';
import { connect } from './crossing.ts';
import { lower } from './lower.ts';
import { timelineSeconds } from './timeline.ts';

const { program } = tinyProgram({ seed: 3, layers: [['gqa', 'experts']] });

/** Steps on devices, each reading the outputs of others by name; placed with copies and tasks. */
function placed(steps: readonly (readonly [name: string, device: string, reads: readonly string[]])[]): Program {
  const names = steps.map(([name]) => name);
  const made = steps.map(([name, device, reads], id): Step => {
    const inputs = reads.map((read) => ({ kind: 'value' as const, value: names.indexOf(read), start: 0, columns: 4 }));
    return {
      op: name,
      name,
      layer: 0,
      inputs,
      outputs: [id],
      attributes: {},
      placement: { device, activation: 'f32' },
    };
  });
  const values = names.map((name, id) => ({ id, name, type: 'f32', rows: 'O', columns: 4 }) as const);
  return connect({ ...program, values, steps: made, logits: names.length - 1 });
}

/** Seconds of a step by its name; copies and what is not named take none. */
const taking = (seconds: Readonly<Record<string, number>>) => (step: Step) => seconds[step.name] ?? 0;

const HYBRID = (device = 'cuda:0') =>
  placed([
    ['x', device, []],
    ['experts', 'cpu', ['x']],
    ['shared', device, ['x']],
    ['sum', device, ['experts', 'shared']],
  ]);

describe('a pass takes', () => {
  test('on one device the sum of its steps', () => {
    const alone = lower(program, { device: 'cpu' });
    expect(timelineSeconds(alone, () => 0.5, 7)).toBe(alone.steps.length / 2);
  });

  test.each([
    ['the processor is the slower one', { x: 1, experts: 10, shared: 3, sum: 2 }, 1 + 10 + 2],
    ['the accelerator is the slower one', { x: 1, experts: 2, shared: 5, sum: 2 }, 1 + 5 + 2],
  ])('between submit and wait as long as the slower side: %s', (_, seconds, whole) => {
    expect(timelineSeconds(HYBRID(), taking(seconds), 0)).toBe(whole);
  });

  test('a hand-over on the way to the processor and back', () => {
    expect(timelineSeconds(HYBRID(), taking({ x: 1, experts: 10, shared: 3, sum: 2 }), 0.5)).toBe(13.5);
    // Behind the accelerator's own work nobody sees it.
    expect(timelineSeconds(HYBRID(), taking({ x: 1, experts: 1, shared: 9, sum: 2 }), 0.5)).toBe(12);
  });

  test('all copies: those of an accelerator on its clock, none on the processor’s', () => {
    const copies = (step: Step) => (step.op === 'copy' ? 1 : 0);
    expect(timelineSeconds(HYBRID(), copies, 0)).toBe(2);
  });

  test('two accelerators: one after the other where values say so, else at once', () => {
    const chain = placed([
      ['a', 'cuda:0', []],
      ['b', 'cuda:1', ['a']],
      ['c', 'cuda:0', ['b']],
    ]);
    const apart = placed([
      ['a', 'cuda:0', []],
      ['b', 'cuda:1', []],
      ['c', 'cuda:0', ['b', 'a']],
    ]);
    const seconds = taking({ a: 3, b: 5, c: 1 });
    expect(timelineSeconds(chain, seconds, 0)).toBe(9);
    expect(timelineSeconds(apart, seconds, 0)).toBe(6);
  });

  test('tasks follow each other on the processor', () => {
    const two = placed([
      ['x', 'cuda:0', []],
      ['first', 'cpu', ['x']],
      ['y', 'cuda:0', ['first']],
      ['second', 'cpu', ['y']],
      ['z', 'cuda:0', ['second']],
    ]);
    expect(timelineSeconds(two, taking({ x: 1, first: 4, y: 1, second: 4, z: 1 }), 0.25)).toBe(11.5);
  });
});
