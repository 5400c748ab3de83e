/** What a step is given when it is checked: numbers of size 1 that follow from a seed, and expert ids that its weights have. */
import type { Program, Step } from '../../program/program.ts';
import type { Value } from '../../program/tensor.ts';

export type ValueData = Float32Array | Int32Array;

/** By value, whole: [rows, columns]. */
export type StepInputs = ReadonlyMap<number, ValueData>;

/** Weights that the experts of a check may have between them, about; two are taken in any case. */
const EXPERT_WEIGHTS = 24e6;

export function inputsOf(program: Program, step: Step, rowsOf: (value: Value) => number, seed: number): StepInputs {
  const inputs = new Map<number, ValueData>();
  step.inputs.forEach((operand, place) => {
    if (operand?.kind !== 'value' || inputs.has(operand.value)) return;
    const value = program.values[operand.value];
    const rows = rowsOf(value);
    const random = uniform(seed * 31 + place);
    if (value.type === 'i32') {
      const data = new Int32Array(rows * value.columns).fill(-1);
      for (let row = 0; row < rows; row++)
        data.set(idsOf(program, step, row, operand.columns), row * value.columns + operand.start);
      inputs.set(operand.value, data);
      return;
    }
    // Shares of experts are positive; whatever else comes, the mean square is 1.
    const number = step.op === 'experts' && place === 2 ? () => 0.1 + random() : () => (random() - 0.5) * Math.sqrt(12);
    inputs.set(operand.value, Float32Array.from({ length: rows * value.columns }, number));
  });
  return inputs;
}

/** Of one row. All rows visit the same experts, so that each has many: the first, the last, and some between. */
function idsOf(program: Program, step: Step, row: number, columns: number): number[] {
  const gate = step.inputs[3];
  if (gate?.kind !== 'weight') return Array.from({ length: columns }, (_, j) => (j + row) % columns);
  const visited = visitedExperts(program.weights[gate.weight].shape, columns);
  return Array.from({ length: columns }, (_, j) => visited[(j + row) % columns] ?? -1);
}

function visitedExperts([experts, ffn, hidden]: readonly number[], topk: number): number[] {
  const wanted = Math.max(2, Math.floor(EXPERT_WEIGHTS / (3 * ffn * hidden)));
  const count = Math.min(wanted, topk, experts);
  const apart = count > 1 ? (experts - 1) / (count - 1) : 0;
  return Array.from({ length: count }, (_, i) => Math.round(i * apart));
}

/** mulberry32: numbers in [0, 1). */
export function uniform(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}
