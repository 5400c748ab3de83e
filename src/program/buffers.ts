/**
 * Which values share memory. A slot is one buffer [rows, columns] of 4-byte elements; values whose lives do not overlap
 * share a slot. A value lives from the step that writes it up to and including the last step that reads it, so no step
 * ever reads and writes the same bytes; kernels may assume that operands do not alias.
 */
import type { Program } from './program.ts';
import type { Rows } from './tensor.ts';

export interface BufferPlan {
  readonly slots: readonly { readonly rows: Rows; readonly columns: number }[];
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
  lives[program.logits].last = program.steps.length;
  return lives;
}

/** Greedy linear scan: the free slot with the closest width is taken, else a new one is made. */
export function planBuffers(program: Program): BufferPlan {
  const lives = lifetimes(program);
  const slots: { rows: Rows; columns: number }[] = [];
  const freeAfter: number[] = [];
  const slotOf: number[] = program.values.map(() => -1);
  const order = program.values.map((value) => value.id).sort((a, b) => lives[a].first - lives[b].first || a - b);
  for (const id of order) {
    const { rows, columns } = program.values[id];
    let best = -1;
    for (let s = 0; s < slots.length; s++) {
      if (slots[s].rows !== rows || freeAfter[s] >= lives[id].first) continue;
      if (best < 0 || Math.abs(slots[s].columns - columns) < Math.abs(slots[best].columns - columns)) best = s;
    }
    if (best < 0) {
      best = slots.length;
      slots.push({ rows, columns: 0 });
      freeAfter.push(-1);
    }
    slots[best].columns = Math.max(slots[best].columns, columns);
    freeAfter[best] = lives[id].last;
    slotOf[id] = best;
  }
  return { slots, slotOf };
}
