/**
 * One pass of the reference: the values of the batch, and the machine that runs one step on them. Nothing is shared
 * between values; a value is made when its step runs.
 */
import { TandemError } from '../errors.ts';
import { F16_VALUES, f32ToF16 } from '../formats/quants/half.ts';
import { opNamed } from '../ops/index.ts';
import { kernelRun } from '../ops/kernel.ts';
import type { Matrix, Op, ReferenceContext } from '../ops/op.ts';
import { tokenLogprob, topLogprobs } from '../ops/sampling.ts';
import { type Batch, type PassResult, phaseOf, rowPositions } from '../program/batch.ts';
import { type Attribute, executionOf, type Phase, type Program, type Step } from '../program/program.ts';
import { attributeOf } from '../program/rules.ts';
import type { Value } from '../program/tensor.ts';
import type { ReferenceKv } from './reference-kv.ts';
import type { ReferenceWeights } from './reference-weights.ts';

export interface PassOptions {
  readonly trackMagnitudes: boolean;
  readonly imitateF16Cache: boolean;
  /** Handed to kernels: aborted when nobody wants the pass any more. */
  readonly signal?: AbortSignal;
}

function toF16(value: number): number {
  return F16_VALUES[f32ToF16(value)];
}

export class ReferencePass {
  readonly batch: Batch;
  readonly #program: Program;
  readonly #weights: ReferenceWeights;
  readonly #kv: ReferenceKv;
  readonly #positions: Int32Array;
  readonly #phase: Phase;
  readonly #options: PassOptions;
  readonly #values: (Float32Array | Int32Array | undefined)[];
  readonly #magnitudes: (Float32Array | undefined)[];
  readonly #started = performance.now();

  constructor(program: Program, weights: ReferenceWeights, kv: ReferenceKv, batch: Batch, options: PassOptions) {
    this.batch = batch;
    this.#program = program;
    this.#weights = weights;
    this.#kv = kv;
    this.#positions = rowPositions(batch);
    this.#phase = phaseOf(batch);
    this.#options = options;
    this.#values = program.values.map(() => undefined);
    this.#magnitudes = program.values.map(() => undefined);
  }

  async step(index: number): Promise<void> {
    const step = this.#program.steps[index];
    const op = opNamed(step.op);
    const weights = step.inputs.flatMap((operand) => (operand?.kind === 'weight' ? [operand.weight] : []));
    const context = this.#context(step, op);
    const chosen = op.chosenBy === undefined ? undefined : new Set(context.integers(op.chosenBy).data);
    await this.#weights.load(weights, chosen);
    await kernelRun(step.op, executionOf(step, this.#phase)?.kernel)(context);
  }

  /** Undefined until the value's step has run. */
  value(id: number): Float32Array | Int32Array | undefined {
    return this.#values[id];
  }

  set(id: number, data: Float32Array | Int32Array): void {
    const value = this.#program.values[id];
    const expected = this.#rows(value) * value.columns;
    if (data.length !== expected || data instanceof Int32Array !== (value.type === 'i32'))
      throw new TandemError('REQUEST_INVALID', {
        room: 'backend',
        rule: `${value.name} is ${value.type} [${this.#rows(value)}, ${value.columns}]`,
        given: `${data.length} elements of ${data.constructor.name}`,
      });
    this.#values[id] = data.slice();
  }

  /** Σ|a·b| of every element of the value, where its op tells. */
  magnitude(id: number): Float32Array | undefined {
    return this.#magnitudes[id];
  }

  /** A page of the cache, f32. */
  page(id: number): Float32Array {
    return this.#kv.page(id);
  }

  /** Lets go of a value nobody reads any more. */
  drop(id: number): void {
    this.#values[id] = undefined;
    this.#magnitudes[id] = undefined;
  }

  /** `cancelled`: slots whose tokens are −1. */
  result(cancelled: ReadonlySet<number>): PassResult {
    const { batch } = this;
    const sampler = this.#program.steps.find((step) => step.op === 'sample');
    const logits = this.#values[this.#program.logits] as Float32Array | undefined;
    const sampled = sampler && this.#values[sampler.outputs[0]];
    const vocabulary = this.#program.vocabSize;
    const tokens = new Int32Array(batch.outputs.length).fill(-1);
    const logprobs = new Float32Array(batch.outputs.length).fill(Number.NaN);
    const top = batch.outputs.map(({ row, sampling }, o) => {
      const sequence = batch.sequences.find(({ firstRow, rows }) => row >= firstRow && row < firstRow + rows);
      if (!sampling || !logits || (sequence && cancelled.has(sequence.slot)))
        return topLogprobs(new Float32Array(0), 0);
      const row_ = logits.subarray(o * vocabulary, (o + 1) * vocabulary);
      tokens[o] = sampled?.[o] ?? -1;
      logprobs[o] = tokenLogprob(row_, tokens[o]);
      return topLogprobs(row_, sampling.topLogprobs);
    });
    const milliseconds = performance.now() - this.#started;
    return { tokens, logprobs, top, logits: batch.wantLogits ? logits : undefined, milliseconds };
  }

  #rows(value: Value): number {
    return value.rows === 'T' ? this.batch.tokens.length : this.batch.outputs.length;
  }

  #context(step: Step, op: Op): ReferenceContext {
    const program = this.#program;
    const execution = executionOf(step, this.#phase);
    const attribute = <T extends Attribute>(name: string) => attributeOf(step, op, name) as T;
    const dense = <Data>(operand: number): Matrix<Data> => {
      const input = step.inputs[operand];
      if (input?.kind !== 'value') throw new Error(`${step.name}: operand ${operand} is no value`);
      const value = program.values[input.value];
      const data = this.#values[input.value];
      if (!data)
        throw new TandemError('PROGRAM_INVALID', {
          room: 'backend',
          rule: 'a value is written before it is read',
          given: `${step.name} reads ${value.name}`,
        });
      const rows = this.#rows(value);
      return {
        rows,
        columns: input.columns,
        data: view(data, rows, value.columns, input.start, input.columns) as Data,
      };
    };
    const fresh = <Data>(index: number): Matrix<Data> => {
      const id = step.outputs[index];
      const value = program.values[id];
      const size = this.#rows(value) * value.columns;
      this.#values[id] ??= value.type === 'i32' ? new Int32Array(size) : new Float32Array(size);
      // Frozen: a kernel that puts an array of its own here would not be heard.
      return Object.freeze({ rows: this.#rows(value), columns: value.columns, data: this.#values[id] as Data });
    };
    for (const id of step.outputs) this.drop(id);
    return {
      batch: this.batch,
      positions: this.#positions,
      kv: this.#kv,
      roundAttended: this.#options.imitateF16Cache ? toF16 : undefined,
      step,
      signal: this.#options.signal,
      activation: execution?.activation ?? 'f32',
      middle: execution?.middle ?? execution?.activation ?? 'f32',
      tiles: execution?.tiles ?? Number.POSITIVE_INFINITY,
      matrix: (operand) => dense<Float32Array>(operand),
      integers: (operand) => dense<Int32Array>(operand),
      weight: (operand) => {
        const input = step.inputs[operand];
        if (input?.kind !== 'weight') throw new Error(`${step.name}: operand ${operand} is no weight`);
        return this.#weights.reader(input.weight);
      },
      has: (operand) => (step.inputs[operand] ?? null) !== null,
      number: (name) => attribute<number>(name),
      text: (name) => attribute<string>(name),
      numbers: (name) => attribute<readonly number[]>(name),
      flag: (name) => attribute<boolean>(name),
      output: (index) => fresh<Float32Array>(index),
      outputIntegers: (index) => fresh<Int32Array>(index),
      magnitude: (index) => {
        if (!this.#options.trackMagnitudes) return undefined;
        const id = step.outputs[index];
        this.#magnitudes[id] ??= new Float32Array(this.#rows(program.values[id]) * program.values[id].columns);
        return this.#magnitudes[id];
      },
    };
  }
}

/** Columns [start, start + columns) of a row-major matrix, dense. The whole matrix is not copied. */
function view<Data extends Float32Array | Int32Array>(
  data: Data,
  rows: number,
  stride: number,
  start: number,
  columns: number,
): Float32Array | Int32Array {
  if (columns === stride) return data;
  const dense = data instanceof Int32Array ? new Int32Array(rows * columns) : new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++)
    dense.set(data.subarray(r * stride + start, r * stride + start + columns), r * columns);
  return dense;
}
