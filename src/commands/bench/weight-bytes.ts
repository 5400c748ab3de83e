/** How many bytes of weights a step reads: the floor under its time when one token is computed. */
import { rowBytes } from '../../formats/dtype.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import type { Program, Step } from '../../program/program.ts';

/** Bytes that one token needs: of an embedding one row, of experts those that the router chooses, else all. */
export function bytesPerToken(program: Program, step: Step): number {
  const whole = step.inputs.reduce((sum, input) => {
    if (input?.kind !== 'weight') return sum;
    const { shape, format } = program.weights[input.weight];
    const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
    return sum + rows * rowBytes(quantFormat(format), shape[shape.length - 1]);
  }, 0);
  return whole * shareRead(program, step);
}

function shareRead(program: Program, { op, inputs }: Step): number {
  const shapeOf = (operand: number): readonly number[] => {
    const input = inputs[operand];
    return input?.kind === 'weight' ? program.weights[input.weight].shape : [1];
  };
  if (op === 'embed') return 1 / shapeOf(0)[0];
  const chosen = inputs[1];
  if (op === 'experts' && chosen?.kind === 'value') return chosen.columns / shapeOf(3)[0];
  return 1;
}
