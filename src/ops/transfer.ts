/**
 * copy, submit, wait: what lowering puts between devices. `copy` is the identity, on the device of its step; `submit`
 * and `wait` bound a task of the CPU (program/tasks.ts) and compute nothing: run in order, a Program gives the same
 * numbers wherever its steps are placed.
 */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { size } from './shapes.ts';

export const copy = defineOp({
  name: 'copy',
  inputs: [{ name: 'x', kind: 'value' }],
  attributes: {},
  bound: EXACT,
  shape: ({ values: [x] }) => [{ type: x!.type, rows: x!.rows, columns: x!.columns }],
  reference(context) {
    context.outputIntegers(0).data.set(context.integers(0).data);
  },
});

export const submit = defineOp({
  name: 'submit',
  inputs: [],
  attributes: { task: { type: 'number' }, steps: { type: 'number' } },
  bound: EXACT,
  shape(context) {
    checkTask(context.number('task'), context.expect);
    size(context, 'steps');
    return [];
  },
  reference() {},
});

export const wait = defineOp({
  name: 'wait',
  inputs: [],
  attributes: { task: { type: 'number' } },
  bound: EXACT,
  shape(context) {
    checkTask(context.number('task'), context.expect);
    return [];
  },
  reference() {},
});

function checkTask(task: number, expect: (condition: boolean, rule: string) => void): void {
  expect(Number.isInteger(task) && task >= 0, 'tasks are numbered from 0');
}
