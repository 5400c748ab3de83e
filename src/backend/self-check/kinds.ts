/**
 * Kinds of steps on GPUs: steps of one kind give the same kernels the same sizes and differ in addresses alone, so one of each
 * is checked (check.ts). Made of the Program, never of the names of kernels.
 */
import type { Program, Step, StepExecution } from '../../program/program.ts';
import type { Operand } from '../../program/tensor.ts';
import { HOST } from '../../program/validate-devices.ts';

export interface StepKind {
  /** Index of the first step of the kind. */
  readonly step: number;
  readonly device: string;
  /** For people: `linear q4_k 4096x14336 on cuda:0`. */
  readonly label: string;
  /** What tells it from all other kinds of a device, of other models too. */
  readonly key: string;
  /** How many steps of the Program are of it. */
  readonly steps: number;
}

/** Between devices, and no arithmetic. */
const MOVES: ReadonlySet<string> = new Set(['copy', 'submit', 'wait']);

/** Those of steps that a GPU's own kernels compute, in the order of the Program. */
export function stepKinds(program: Program): StepKind[] {
  const kinds = new Map<string, StepKind>();
  program.steps.forEach((step, index) => {
    const { placement } = step;
    const device = placement?.device ?? HOST;
    if (device === HOST || MOVES.has(step.op)) return;
    if (placement?.kernel !== undefined || placement?.decode?.kernel !== undefined) return; // of users
    const key = keyOf(program, step);
    const known = kinds.get(device + key);
    const label = `${describe(program, step)} on ${device}`;
    kinds.set(
      device + key,
      known ? { ...known, steps: known.steps + 1 } : { step: index, device, label, key, steps: 1 },
    );
  });
  return [...kinds.values()];
}

function keyOf(program: Program, step: Step): string {
  const { cache, ...attributes } = step.attributes;
  const { decode, ...prefill } = step.placement!;
  const cached = cache === undefined ? null : [program.kv.type, program.kv.layers[Number(cache)]];
  return JSON.stringify([
    step.op,
    step.inputs.map((operand) => operandKey(program, operand)),
    step.outputs.map((id) => program.values[id].columns),
    attributes,
    [executionKey(prefill), executionKey(decode ?? prefill)],
    cached,
  ]);
}

/** Where a view begins and how far apart its rows are decides how it can be loaded. */
function operandKey(program: Program, operand: Operand) {
  if (operand === null) return null;
  if (operand.kind === 'weight') {
    const { format, shape } = program.weights[operand.weight];
    return [format, shape];
  }
  const { rows, columns } = program.values[operand.value];
  return [rows, operand.start, operand.columns, columns];
}

function executionKey({ activation, middle, tiles }: StepExecution) {
  return [activation, middle ?? null, tiles ?? null];
}

/** `linear q4_k 4096x14336`; without weights the columns of what it reads. */
function describe(program: Program, step: Step): string {
  const words = step.inputs.flatMap((operand) => {
    if (operand?.kind !== 'weight') return [];
    const { format, shape } = program.weights[operand.weight];
    return [`${format} ${shape.join('x')}`];
  });
  const [first] = step.inputs;
  if (words.length === 0 && first?.kind === 'value') words.push(String(first.columns));
  return `${step.op} ${[...new Set(words)].join(', ')}`;
}
