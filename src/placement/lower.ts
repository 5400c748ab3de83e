/**
 * Placement: every step gets a device and the rounding of its activations. A pure function of the Program and the
 * machine; the result differs from the Program in `placement` alone.
 */
import { TandemError } from '../errors.ts';
import type { FormatName } from '../formats/dtype.ts';
import { activationOf } from '../ops/activation.ts';
import type { ActivationFormat, Program, Step, StepPlacement } from '../program/program.ts';

/** What the steps may be placed on. */
export interface Machine {
  readonly device: 'cpu';
}

export interface LowerOptions {
  /** No activation is rounded: for judging a model against golden logits. Default false: the formats' fast paths. */
  readonly exactF32?: boolean;
}

/** The same Program, placed. */
export function lower(program: Program, machine: Machine, options: LowerOptions = {}): Program {
  const steps = program.steps.map((step) => ({ ...step, placement: place(program, step, machine, options) }));
  return { ...program, steps };
}

function place(program: Program, step: Step, { device }: Machine, { exactF32 = false }: LowerOptions): StepPlacement {
  const formatOf = (operand: number): FormatName => {
    const input = step.inputs[operand];
    if (input?.kind === 'weight') return program.weights[input.weight].format;
    throw new TandemError('PROGRAM_INVALID', {
      room: 'placement',
      rule: `operand ${operand} of ${step.op} is a weight`,
      given: `in step ${step.name} it is not`,
    });
  };
  if (exactF32 || (step.op !== 'linear' && step.op !== 'experts')) {
    return step.op === 'experts' ? { device, activation: 'f32', middle: 'f32' } : { device, activation: 'f32' };
  }
  if (step.op === 'linear') return { device, activation: activationOf(formatOf(1)) };
  const [gate, up, down] = [formatOf(3), formatOf(4), formatOf(5)];
  return { device, activation: common(activationOf(gate), activationOf(up)), middle: activationOf(down) };
}

/** Gate and up see the same rounded x: where their formats want different blocks, x stays f32. */
function common(a: ActivationFormat, b: ActivationFormat): ActivationFormat {
  return a === b ? a : 'f32';
}
