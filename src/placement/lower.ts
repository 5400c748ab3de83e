/**
 * Placement: every step gets a device, the rounding of its activations and, in fast mode, the rows from which it runs on
 * tiles. A pure function of the Program and the machine; the result differs from the Program in `placement` alone.
 */
import { TandemError } from '../errors.ts';
import type { FormatName } from '../formats/dtype.ts';
import { activationOf } from '../ops/activation.ts';
import type { ActivationFormat, Program, Step, StepPlacement } from '../program/program.ts';
import type { TileRule } from './tiles.ts';

/** What the steps may be placed on. */
export interface Machine {
  readonly device: 'cpu';
  /** From how many rows tiles serve a step (`tileRule`); absent: it has none. */
  readonly tiles?: TileRule;
}

export interface LowerOptions {
  /**
   * One format and one order of summation for each row, whatever the batch: no tiles (decision 003). Default false: fast
   * where the machine's rule says so.
   */
  readonly exact?: boolean;
  /**
   * `rounded` (default): activations are rounded as the weights' kernels want it. `f32`: not at all, for judging a model
   * against golden logits; exact, too.
   */
  readonly activations?: 'rounded' | 'f32';
}

/** The same Program, placed. */
export function lower(program: Program, machine: Machine, options: LowerOptions = {}): Program {
  const { exact = false, activations = 'rounded' } = options;
  const rule = exact || activations === 'f32' ? undefined : machine.tiles;
  const routing = routerInputs(program);
  const steps = program.steps.map((step) => {
    const rounding = activations === 'f32' ? UNROUNDED : roundingOf(program, step);
    const tiles = rule && !step.outputs.some((id) => routing.has(id)) ? tilesOf(program, step, rule) : undefined;
    const { activation, middle = step.op === 'experts' ? activation : undefined } = rounding;
    const placement: StepPlacement = {
      device: machine.device,
      activation,
      ...(middle === undefined ? {} : { middle }),
      ...(tiles === undefined ? {} : { tiles }),
    };
    return { ...step, placement };
  });
  return { ...program, steps };
}

type Rounding = Pick<StepPlacement, 'activation' | 'middle'>;

const UNROUNDED: Rounding = { activation: 'f32' };

function roundingOf(program: Program, step: Step): Rounding {
  if (step.op === 'linear') return { activation: activationOf(formatOf(program, step, 1)) };
  if (step.op !== 'experts') return UNROUNDED;
  const [gate, up, down] = EXPERTS.map((operand) => formatOf(program, step, operand));
  return { activation: common(activationOf(gate), activationOf(up)), middle: activationOf(down) };
}

/** Gate and up see the same rounded x: where their formats want different blocks, x stays f32. */
function common(a: ActivationFormat, b: ActivationFormat): ActivationFormat {
  return a === b ? a : 'f32';
}

/** Values that choose experts: one flipped choice changes a row more than any rounding, so they are never on tiles. */
function routerInputs(program: Program): ReadonlySet<number> {
  const inputs = program.steps.flatMap((step) => (step.op === 'router' ? step.inputs : []));
  return new Set(inputs.flatMap((input) => (input?.kind === 'value' ? [input.value] : [])));
}

/** Operands gate, up and down. */
const EXPERTS = [3, 4, 5];

/** A step with several weights runs on tiles as a whole, from the most rows that one of them asks for. */
function tilesOf(program: Program, step: Step, rule: TileRule): number | undefined {
  const weights = step.inputs.flatMap((input, operand) => (input?.kind === 'weight' ? [operand] : []));
  // Biases are added, not multiplied.
  const matrices = step.op === 'experts' ? EXPERTS : step.op === 'linear' ? [1] : weights;
  const rows = matrices.map((operand) => rule(step.op, formatOf(program, step, operand)));
  if (rows.length === 0) return rule(step.op);
  return rows.every((n) => n !== undefined) ? Math.max(...rows) : undefined;
}

function formatOf(program: Program, step: Step, operand: number): FormatName {
  const input = step.inputs[operand];
  if (input?.kind === 'weight') return program.weights[input.weight].format;
  throw new TandemError('PROGRAM_INVALID', {
    room: 'placement',
    rule: `operand ${operand} of ${step.op} is a weight`,
    given: `in step ${step.name} it is not`,
  });
}
