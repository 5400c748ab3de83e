/**
 * Expert deferral, lossy: of the k experts of a token the d that weigh least are computed from the same input, but their sum
 * enters one layer later, with that layer's own experts. Where the CPU computes experts for GPUs it has work while they
 * compute attention: `wait` lies a layer later (placement/crossing.ts), and the order of the list is still correct.
 *
 *     layer l      %a = experts x ids[0:k-d]   %y = add %a %deferred(l-1)     what read the experts reads %y
 *                  %deferred(l) = experts x ids[k-d:k]                        read in layer l+1
 *
 * The last layer with experts defers nothing, nor does one before a layer without. The same in all passes, reading and
 * generating, and on all backends: a row gives the same whatever the batch.
 */
import { TandemError } from '../errors.ts';
import type { Program, Step } from '../program/program.ts';
import type { Operand, Value } from '../program/tensor.ts';

/** The same Program with `count` experts of a token deferred; 0: the Program itself. REQUEST_INVALID outside [0, k). */
export function withDeferredExperts(program: Program, count: number): Program {
  const layers = expertLayers(program);
  const chosen = Math.min(...layers.map((step) => operandOf(step, IDS).columns));
  if (layers.length === 0 || !Number.isInteger(count) || count < 0 || count >= chosen)
    throw invalid(
      layers.length === 0
        ? 'deferExperts is for models with routed experts'
        : `deferExperts is a whole number from 0 to ${chosen - 1}: of ${chosen} experts a token one is in time`,
      layers.length === 0 ? `${program.name} has none` : String(count),
      layers.length === 0 ? 'leave it out' : undefined,
    );
  const numbers = new Set(layers.map(({ layer }) => layer));
  if (count === 0 || !layers.some(({ layer }) => numbers.has(layer + 1))) return program;
  checkReaders(program, layers);
  return new Deferral(program, numbers, count).program();
}

/** What is said about it, for whoever runs it: of the Program before, and what it became. */
export function deferralWarning(program: Program, deferred: Program, count: number): string | undefined {
  if (deferred === program) return undefined;
  const { columns } = operandOf(expertLayers(program)[0], IDS);
  return `${count} of the ${columns} experts of a token come one layer late: faster where GPUs wait for the CPU, and lossy`;
}

type ValueOperand = Extract<Operand, { kind: 'value' }>;

/** Operands of `experts`. */
const [IDS, WEIGHTS] = [1, 2];

class Deferral {
  readonly #program: Program;
  /** Those with experts. */
  readonly #layers: ReadonlySet<number>;
  readonly #count: number;
  readonly #values: Value[];
  /** The sum that the next layer's experts take along: its value. */
  #pending: number | undefined;

  constructor(program: Program, layers: ReadonlySet<number>, count: number) {
    this.#program = program;
    this.#layers = layers;
    this.#count = count;
    this.#values = [...program.values];
  }

  program(): Program {
    const steps = this.#program.steps.flatMap((step) => (step.op === 'experts' ? this.#split(step) : [step]));
    return { ...this.#program, values: this.#values, steps };
  }

  #split(step: Step): Step[] {
    const late = this.#pending;
    this.#pending = undefined;
    const whole = this.#program.values[step.outputs[0]];
    const kept = late === undefined ? whole.id : this.#value(`${step.name}.kept`, whole);
    const sum = late === undefined ? [] : [sumOf(step, kept, late, whole)];
    if (!this.#layers.has(step.layer + 1)) return [{ ...step, outputs: [kept] }, ...sum];
    const { ids, weights, steps } = this.#ranked(step);
    const split = ids.columns - this.#count;
    const of = (start: number, end: number) =>
      step.inputs.map((input, operand) => {
        if (operand === IDS) return part(ids, start, end);
        return operand === WEIGHTS ? part(weights, start, end) : input;
      });
    this.#pending = this.#value(`${step.name}.deferred`, whole);
    return [
      ...steps,
      { ...step, inputs: of(0, split), outputs: [kept] },
      ...sum,
      { ...step, name: `${step.name}.deferred`, inputs: of(split, ids.columns), outputs: [this.#pending] },
    ];
  }

  /** Ids and weights, the heaviest first: a router without a correction bias gives them so, else a step orders them. */
  #ranked(step: Step): { ids: ValueOperand; weights: ValueOperand; steps: Step[] } {
    const [ids, weights] = [operandOf(step, IDS), operandOf(step, WEIGHTS)];
    const writer = this.#program.steps.find(({ outputs }) => outputs.includes(ids.value));
    if (writer?.op === 'router' && !writer.inputs[1]) return { ids, weights, steps: [] };
    const name = `${step.name}.rank`;
    const { columns } = ids;
    const ranked = [ids, weights].map(({ value }, i): ValueOperand => {
      const like = { ...this.#program.values[value], columns };
      return { kind: 'value', value: this.#value(`${name}.${i === 0 ? 'ids' : 'weights'}`, like), start: 0, columns };
    });
    const outputs = ranked.map(({ value }) => value);
    const rank = { op: 'rank-experts', name, layer: step.layer, inputs: [ids, weights], outputs, attributes: {} };
    return { ids: ranked[0], weights: ranked[1], steps: [rank] };
  }

  #value(name: string, like: Value): number {
    const id = this.#values.length;
    this.#values.push({ ...like, id, name });
    return id;
  }
}

/** What the layer's experts gave in time, and what is late of the layer before. */
function sumOf({ name, layer }: Step, kept: number, late: number, { id, columns }: Value): Step {
  const inputs = [kept, late].map((value): Operand => ({ kind: 'value', value, start: 0, columns }));
  return { op: 'add', name: `${name}.sum`, layer, inputs, outputs: [id], attributes: {} };
}

/** A sum may come later only where it is added to what goes from layer to layer. */
function checkReaders({ name, steps }: Program, layers: readonly Step[]): void {
  const made = new Map(layers.map((step) => [step.outputs[0], step.name]));
  for (const { op, name: reader, inputs } of steps) {
    const read = inputs.find((input) => input?.kind === 'value' && made.has(input.value));
    if (op === 'add' || read?.kind !== 'value') continue;
    throw invalid(
      'deferExperts is for models that add their experts to the residual',
      `in ${name}, ${reader} (${op}) reads ${made.get(read.value)}`,
      'leave it out',
    );
  }
}

/** Steps with routed experts; one a layer. */
function expertLayers({ steps }: Program): Step[] {
  return steps.filter(({ op }) => op === 'experts');
}

function operandOf({ inputs }: Step, operand: number): ValueOperand {
  return inputs[operand] as ValueOperand;
}

/** Columns [start, end) of what a view shows. */
function part(view: ValueOperand, start: number, end: number): ValueOperand {
  return { ...view, start: view.start + start, columns: end - start };
}

function invalid(rule: string, given: string, fix?: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'models', rule, given, fix });
}
