/**
 * Work of the CPU that accelerators do not wait for. `submit` hands over the steps that follow it, `wait` takes the
 * results; what stands between them runs meanwhile. Tasks run one after the other, in the order of their submits.
 *
 *     submit task=3 steps=1      everything above has been computed
 *       experts … @cpu           [first, end) of task 3
 *     linear … @cuda:0           runs beside it
 *     wait task=3                nothing below begins before the task is done
 */
import type { Program } from './program.ts';

export interface Task {
  /** Its number, counted from 0. */
  readonly task: number;
  /** Indices of steps: its own are [first, end), `wait` ends it (the number of steps where nothing does). */
  readonly first: number;
  readonly end: number;
  readonly wait: number;
}

/** The tasks of a Program, in the order of their submits. */
export function tasksOf({ steps }: Program): Task[] {
  const waits = new Map<unknown, number>();
  steps.forEach(({ op, attributes }, index) => {
    if (op === 'wait') waits.set(attributes.task, index);
  });
  return steps.flatMap(({ op, attributes }, index) => {
    if (op !== 'submit') return [];
    const [task, count] = [Number(attributes.task), Number(attributes.steps)];
    return [{ task, first: index + 1, end: index + 1 + count, wait: waits.get(task) ?? steps.length }];
  });
}
