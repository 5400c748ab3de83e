/**
 * The reference backend: plain TypeScript, the definition of every op, slow. It holds f32 values, accumulates in f64, and
 * imitates what a placement says about activations, so that a kernel is judged on its arithmetic alone.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { OPS } from '../ops/index.ts';
import type { Batch, PassResult } from '../program/batch.ts';
import { lifetimes } from '../program/buffers.ts';
import { type Program, pageBytes } from '../program/program.ts';
import type { Backend, Executable, PrepareOptions, Stepper } from './backend.ts';
import { checkBatch } from './check-batch.ts';
import { ReferenceKv } from './reference-kv.ts';
import { type PassOptions, ReferencePass } from './reference-pass.ts';
import { ReferenceWeights, weightBytes } from './reference-weights.ts';
import { Turns } from './turns.ts';

export interface ReferenceOptions {
  /** Collect Σ|a·b| of every element, the scale of accumulation errors. About twice the time. Default false. */
  readonly trackMagnitudes?: boolean;
  /** Round keys and values to f16 as attention meets them: for goldens of engines with an expanded f16 cache. Default false. */
  readonly imitateF16Cache?: boolean;
  /** Bytes of weights to keep in memory, decoded where they fit. Default 2 GiB. */
  readonly weightLimit?: number;
}

export interface ReferenceStepper extends Stepper {
  /** Σ|a·b| of every element of a value, where it is tracked and its op tells. */
  magnitude(value: number): Float32Array | undefined;
  /** Row of a weight that the last step read, decoded. */
  weightRow(weight: number, row: number): Float32Array;
  readPage(page: number): Promise<Float32Array>;
}

export interface ReferenceExecutable extends Executable {
  start(batch: Batch): Promise<ReferenceStepper>;
}

export interface ReferenceBackend extends Backend {
  prepare(program: Program, checkpoint: Checkpoint, options: PrepareOptions): Promise<ReferenceExecutable>;
}

export function referenceBackend(options: ReferenceOptions = {}): ReferenceBackend {
  return {
    name: 'reference',
    async prepare(program, checkpoint, limits) {
      if (limits.signal?.aborted)
        throw new TandemError('ABORTED', { room: 'backend', rule: 'loading stops when its signal says so' });
      for (const step of program.steps)
        if (!OPS.has(step.op))
          throw new TandemError('PROGRAM_INVALID', {
            room: 'backend',
            rule: `reference runs ${[...OPS.keys()].join(', ')}`,
            given: `step ${step.name} is ${step.op}`,
          });
      const total = weightBytes(program, checkpoint);
      const weights = new ReferenceWeights(program, checkpoint, options.weightLimit ?? 2 ** 31);
      limits.onProgress?.(total, total); // weights are read when a step first needs them
      return new ReferenceExecutor(
        program,
        weights,
        limits,
        { trackMagnitudes: options.trackMagnitudes ?? false, imitateF16Cache: options.imitateF16Cache ?? false },
        total,
      );
    },
  };
}

class ReferenceExecutor implements ReferenceExecutable {
  readonly program: Program;
  readonly pages: number;
  readonly description: Readonly<Record<string, string | number>>;
  readonly #weights: ReferenceWeights;
  readonly #limits: PrepareOptions;
  readonly #options: PassOptions;
  readonly #turns = new Turns();
  readonly #cancelled = new Set<number>();
  /** Values whose last reader is step i. */
  readonly #deadAfter: readonly number[][];
  #kv: ReferenceKv;

  constructor(
    program: Program,
    weights: ReferenceWeights,
    limits: PrepareOptions,
    options: PassOptions,
    bytes: number,
  ) {
    this.program = program;
    this.pages = limits.pages;
    this.#weights = weights;
    this.#limits = limits;
    this.#options = options;
    this.#kv = new ReferenceKv(program.kv, limits.pages);
    this.description = {
      backend: 'reference',
      'weight bytes': bytes,
      'kv bytes': pageBytes(program.kv) * limits.pages,
    };
    const deadAfter: number[][] = program.steps.map(() => []);
    const sampled = new Set(program.steps.filter(({ op }) => op === 'sample').flatMap(({ outputs }) => outputs));
    lifetimes(program).forEach(({ last }, id) => {
      if (!sampled.has(id)) deadAfter[last]?.push(id);
    });
    this.#deadAfter = deadAfter;
  }

  async run(batch: Batch): Promise<PassResult> {
    const { pass, end } = await this.#begin(batch);
    try {
      const alive = () => batch.sequences.some(({ slot }) => !this.#cancelled.has(slot));
      for (let i = 0; i < this.program.steps.length && alive(); i++) {
        await pass.step(i);
        for (const id of this.#deadAfter[i]) pass.drop(id);
        await new Promise((resolve) => setImmediate(resolve)); // so that cancel() is heard
      }
      return pass.result(this.#cancelled);
    } finally {
      end();
    }
  }

  cancel(slot: number): void {
    this.#cancelled.add(slot);
  }

  async start(batch: Batch): Promise<ReferenceStepper> {
    const { pass, end } = await this.#begin(batch);
    const { program } = this;
    const during = this.#turns.hold(end);
    return {
      step: (index) => during(() => pass.step(index)),
      read: (value) =>
        during(async () => {
          const data = pass.value(value);
          if (data) return data.slice();
          throw new TandemError('REQUEST_INVALID', {
            room: 'backend',
            rule: 'a value can be read once its step has run',
            given: program.values[value]?.name ?? `value ${value}`,
          });
        }),
      write: (value, data) => during(async () => pass.set(value, data)),
      magnitude: (value) => pass.magnitude(value),
      weightRow: (weight, row) => this.#weights.reader(weight).row(row).slice(),
      readPage: (page) => during(async () => pass.page(page).slice()),
      finish: () => during(async () => pass.result(this.#cancelled), true),
    };
  }

  async #begin(batch: Batch): Promise<{ pass: ReferencePass; end: () => void }> {
    checkBatch(batch, this.program, this.#limits);
    const end = await this.#turns.take();
    this.#cancelled.clear();
    return { pass: new ReferencePass(this.program, this.#weights, this.#kv, batch, this.#options), end };
  }

  async dispose(): Promise<void> {
    await this.#turns.close();
    this.#weights.clear();
    this.#kv = new ReferenceKv(this.program.kv, 0);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
