/** How many weights one token is multiplied with: two operations each, whatever their format. */
import type { Program, Step } from '../program/program.ts';

/** Of an embedding none, of experts those that the router chooses, else all. */
export function activeWeights(program: Program): number {
  return program.steps.reduce((sum, step) => sum + activeOf(program, step), 0);
}

/** Of one step. */
export function activeOf(program: Program, { op, inputs }: Step): number {
  if (op === 'embed') return 0;
  let weights = 0;
  let experts = 1;
  for (const input of inputs) {
    if (input?.kind !== 'weight') continue;
    const { shape } = program.weights[input.weight];
    if (shape.length > 1) weights += shape.reduce((product, length) => product * length, 1);
    experts = shape[0];
  }
  const chosen = inputs[1];
  return op === 'experts' && chosen?.kind === 'value' ? (weights * chosen.columns) / experts : weights;
}
