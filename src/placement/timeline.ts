/**
 * How long a placed Program takes when each step is known: its list is run on clocks instead of devices. A device does its steps
 * in order; the processor does a task beside what stands between `submit` and `wait`:
 *
 *     submit      the task begins when the accelerators have done what stands above
 *     wait        they go on when it is done
 *     copy        takes both ends' time between accelerators, else the accelerator's
 */
import { valueDevices } from '../program/buffers.ts';
import type { Program, Step } from '../program/program.ts';
import { tasksOf } from '../program/tasks.ts';
import { HOST } from '../program/validate-devices.ts';

/** Seconds of a pass. `handover`: from an accelerator to the processor and back; half of it falls on each way. */
export function timelineSeconds(program: Program, secondsOf: (step: Step) => number, handover: number): number {
  const devices = valueDevices(program);
  const clocks = new Map<string, number>();
  const ready = program.values.map(() => 0);
  const tasks = tasksOf(program);
  const accelerators = () => [...clocks].filter(([device]) => device !== HOST);
  const latest = (of: readonly (readonly [string, number])[]) => Math.max(0, ...of.map(([, time]) => time));
  /** Of each task: when it may begin, when it is done. */
  const begins: number[] = [];
  const done: number[] = [];
  let task = -1;
  program.steps.forEach((step, index) => {
    const { op, inputs, outputs, placement } = step;
    const device = placement?.device ?? HOST;
    if (op === 'submit') {
      task = Number(step.attributes.task);
      begins[task] = latest(accelerators()) + handover / 2;
      return;
    }
    if (op === 'wait') {
      const from = (done[Number(step.attributes.task)] ?? 0) + handover / 2;
      for (const [name, time] of accelerators()) clocks.set(name, Math.max(time, from));
      return;
    }
    // A copy from the host, or to it, is the accelerator's work.
    const source = op === 'copy' && inputs[0]?.kind === 'value' ? devices[inputs[0].value] : undefined;
    const other = source === device || source === HOST ? undefined : source;
    const one = op === 'copy' && device === HOST ? undefined : device;
    const own = tasks[task];
    const inTask = own !== undefined && index >= own.first && index < own.end;
    let start = inTask ? begins[task] : 0;
    for (const name of [one, other]) if (name !== undefined) start = Math.max(start, clocks.get(name) ?? 0);
    for (const input of inputs) if (input?.kind === 'value') start = Math.max(start, ready[input.value]);
    const end = start + secondsOf(step);
    for (const name of [one, other]) if (name !== undefined) clocks.set(name, end);
    for (const id of outputs) ready[id] = end;
    if (inTask) done[task] = end;
  });
  return latest([...clocks]);
}
