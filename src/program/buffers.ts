/**
 * Which values share memory. A slot is one buffer [rows, columns] of 4-byte elements; values whose lives do not overlap
 * share a slot. A value lives from the step that writes it up to and including the last step that reads it, so no step
 * ever reads and writes the same bytes; kernels may assume that operands do not alias. Devices share nothing, and what
 * a task of the CPU (`submit` … `wait`) touches stays until its wait, since accelerators go on meanwhile.
 */
import type { Program } from './program.ts';
import { tasksOf } from './tasks.ts';
import type { Rows } from './tensor.ts';

export interface BufferPlan {
  /** `device`: where the buffer lies; absent where the Program has one device. */
  readonly slots: readonly { readonly rows: Rows; readonly columns: number; readonly device?: string }[];
  /** Slot of each value, by value id. */
  readonly slotOf: readonly number[];
}

/** [first, last] step indices in which each value is alive. The logits live to the end. */
export function lifetimes(program: Program): { first: number; last: number }[] {
  const lives = program.values.map(() => ({ first: -1, last: -1 }));
  program.steps.forEach((step, index) => {
    for (const id of step.outputs) {
      if (lives[id].first < 0) lives[id].first = index;
      lives[id].last = Math.max(lives[id].last, index);
    }
    for (const operand of step.inputs) if (operand?.kind === 'value') lives[operand.value].last = index;
  });
  for (const { first, end, wait } of tasksOf(program))
    for (const step of program.steps.slice(first, end)) {
      const touched = step.inputs.flatMap((operand) => (operand?.kind === 'value' ? [operand.value] : []));
      for (const id of [...touched, ...step.outputs]) lives[id].last = Math.max(lives[id].last, wait);
    }
  lives[program.logits].last = program.steps.length;
  return lives;
}

/** The device of the step that writes each value, by value id. */
export function valueDevices({ values, steps }: Program): (string | undefined)[] {
  const devices: (string | undefined)[] = values.map(() => undefined);
  for (const { outputs, placement } of steps) for (const id of outputs) devices[id] = placement?.device;
  return devices;
}

/** Greedy linear scan: the free slot with the closest width is taken, else a new one is made. */
export function planBuffers(program: Program): BufferPlan {
  const lives = lifetimes(program);
  const placed = valueDevices(program);
  const devices = new Set(placed).size > 1 ? placed : [];
  const slots: { rows: Rows; columns: number; device?: string }[] = [];
  const freeAfter: number[] = [];
  const slotOf: number[] = program.values.map(() => -1);
  const order = program.values.map((value) => value.id).sort((a, b) => lives[a].first - lives[b].first || a - b);
  for (const id of order) {
    const { rows, columns } = program.values[id];
    let best = -1;
    for (let s = 0; s < slots.length; s++) {
      if (slots[s].rows !== rows || slots[s].device !== devices[id] || freeAfter[s] >= lives[id].first) continue;
      if (best < 0 || Math.abs(slots[s].columns - columns) < Math.abs(slots[best].columns - columns)) best = s;
    }
    if (best < 0) {
      best = slots.length;
      slots.push({ rows, columns: 0, ...(devices[id] === undefined ? {} : { device: devices[id] }) });
      freeAfter.push(-1);
    }
    slots[best].columns = Math.max(slots[best].columns, columns);
    freeAfter[best] = lives[id].last;
    slotOf[id] = best;
  }
  return { slots, slotOf };
}
