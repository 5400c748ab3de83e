/**
 * The rules between devices: what another device computed is read by `copy` alone, and what the CPU computes for
 * accelerators is handed over by `submit` and taken by `wait`. One device needs neither.
 */
import { valueDevices } from './buffers.ts';
import type { Program, Step } from './program.ts';
import { invalid, stepLabel } from './rules.ts';
import { tasksOf } from './tasks.ts';

/** The device that runs tasks; all others are accelerators. */
export const HOST = 'cpu';

/** PROGRAM_INVALID naming the step. A Program that is not placed has no devices. */
export function checkDevices(program: Program): void {
  checkCopies(program);
  checkTasks(program);
}

function valuesRead(step: Step): number[] {
  return step.inputs.flatMap((operand) => (operand?.kind === 'value' ? [operand.value] : []));
}

function checkCopies(program: Program): void {
  const devices = valueDevices(program);
  for (const step of program.steps) {
    const device = step.placement?.device;
    if (device === undefined) continue;
    for (const id of valuesRead(step)) {
      if ((step.op === 'copy') !== (devices[id] === device)) continue;
      throw step.op === 'copy'
        ? invalid(
            'a copy goes to another device',
            `${stepLabel(step)} reads ${program.values[id].name}, both on ${device}`,
          )
        : invalid(
            'a step reads what lies on its own device',
            `${stepLabel(step)} on ${device} reads ${program.values[id].name}, which lies on ${devices[id]}`,
            'place the Program with lower(), which inserts the copies',
          );
    }
  }
}

function checkTasks(program: Program): void {
  const { steps } = program;
  const tasks = tasksOf(program);
  const waits = steps.flatMap(({ op, attributes }) => (op === 'wait' ? [Number(attributes.task)] : []));
  if (tasks.some(({ task }, i) => task !== i) || waits.length !== tasks.length || waits.some((task, i) => task !== i))
    throw invalid(
      'tasks are numbered in order, each submitted and then waited for once',
      `tasks ${tasks.map(({ task }) => task).join(', ')}, waits ${waits.join(', ')}`,
    );
  const taskOf = new Map<number, number>();
  for (const { task, first, end, wait } of tasks) {
    for (let i = first; i < end; i++) {
      taskOf.set(i, task);
      const step = steps[i];
      if (step?.placement?.device === HOST && !['copy', 'submit', 'wait'].includes(step.op)) continue;
      throw invalid(`a task is made of steps on ${HOST}`, step ? stepLabel(step) : `task ${task} goes on past the end`);
    }
    if (wait < end) throw invalid('a task is submitted before it is waited for', `task ${task}`);
  }
  // Values that are not there before something is waited for: those of tasks, and those that accelerators send.
  const writer = new Map<number, number>();
  steps.forEach((step, index) => {
    for (const id of valuesRead(step)) {
      const from = writer.get(id)!;
      const task = taskOf.get(from);
      if (task !== undefined && !taskOf.has(index) && index < tasks[task].wait)
        throw invalid(
          'what a task computes is read after its wait',
          `${stepLabel(step)} reads ${program.values[id].name}`,
        );
      const arrives = steps[from].op === 'copy' && steps[from].placement?.device === HOST;
      if (arrives && step.placement?.device === HOST && !taskOf.has(index))
        throw invalid(
          `what an accelerator sends is read by a task`,
          `${stepLabel(step)} reads ${program.values[id].name}, and no submit stands between`,
        );
    }
    for (const id of step.outputs) writer.set(id, index);
  });
}
