/**
 * The null backend: shapes and memory, no numbers. It says what a Program would take, and it answers passes at once, so
 * that schedulers and interfaces are tested without a model.
 *
 * Its language model: the token that follows an output row is a hash of that row's token and position (see
 * `nullToken`), whatever came before and whoever is in the batch. Logits, where asked, are 0, and 1 at that token.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { tokenLogprob, topLogprobs } from '../ops/sampling.ts';
import { type Batch, type PassResult, rowPositions } from '../program/batch.ts';
import { type BufferPlan, planBuffers } from '../program/buffers.ts';
import { type Program, pageBytes } from '../program/program.ts';
import { uniform } from '../program/uniform.ts';
import type { Backend, Executable, PrepareOptions, Stepper } from './backend.ts';
import { checkBatch } from './check-batch.ts';
import { weightBytes } from './reference-weights.ts';
import { Turns } from './turns.ts';

export interface NullOptions {
  /** How long a pass takes, in milliseconds of a timer; default: it ends in the next turn of the event loop. */
  readonly passMilliseconds?: number | ((batch: Batch) => number);
}

/** The token after `token` at `position`: ⌊uniform(token, 0, position) · vocabSize⌋. */
export function nullToken(token: number, position: number, vocabSize: number): number {
  return Math.floor(uniform(token, 0, position) * vocabSize);
}

/** Bytes of the buffers of a pass of so many rows and outputs. */
export function bufferBytes(plan: BufferPlan, rows: number, outputs: number): number {
  return plan.slots.reduce((sum, slot) => sum + 4 * slot.columns * (slot.rows === 'T' ? rows : outputs), 0);
}

export function nullBackend(options: NullOptions = {}): Backend {
  return {
    name: 'null',
    async prepare(program, checkpoint, limits) {
      if (limits.signal?.aborted)
        throw new TandemError('ABORTED', { room: 'backend', rule: 'loading stops when its signal says so' });
      const total = weightBytes(program, checkpoint);
      limits.onProgress?.(total, total);
      return new NullExecutable(program, checkpoint, limits, options);
    },
  };
}

class NullExecutable implements Executable {
  readonly program: Program;
  readonly pages: number;
  readonly description: Readonly<Record<string, string | number>>;
  readonly #limits: PrepareOptions;
  readonly #options: NullOptions;
  readonly #turns = new Turns();
  readonly #cancelled = new Set<number>();

  constructor(program: Program, checkpoint: Checkpoint, limits: PrepareOptions, options: NullOptions) {
    this.program = program;
    this.pages = limits.pages;
    this.#limits = limits;
    this.#options = options;
    this.description = {
      backend: 'null',
      'weight bytes': weightBytes(program, checkpoint),
      'buffer bytes': bufferBytes(planBuffers(program), limits.maxRows, limits.maxOutputs),
      'kv bytes': pageBytes(program.kv) * limits.pages,
    };
  }

  async run(batch: Batch): Promise<PassResult> {
    checkBatch(batch, this.program, this.#limits);
    const end = await this.#turns.take();
    this.#cancelled.clear();
    const started = performance.now();
    try {
      const { passMilliseconds: time } = this.#options;
      const wait = typeof time === 'function' ? time(batch) : time;
      await new Promise((resolve) => (wait === undefined ? setImmediate(resolve) : setTimeout(resolve, wait)));
      return this.#result(batch, performance.now() - started);
    } finally {
      end();
    }
  }

  cancel(slot: number): void {
    this.#cancelled.add(slot);
  }

  /** Values are zeros of the right shape until something else is written. */
  async start(batch: Batch): Promise<Stepper> {
    checkBatch(batch, this.program, this.#limits);
    const end = await this.#turns.take();
    this.#cancelled.clear();
    const written = new Map<number, Float32Array | Int32Array>();
    const during = this.#turns.hold(end);
    return {
      step: () => during(async () => {}),
      read: (id) =>
        during(async () => {
          const { type, rows, columns } = this.program.values[id];
          const size = columns * (rows === 'T' ? batch.tokens.length : batch.outputs.length);
          return written.get(id)?.slice() ?? (type === 'i32' ? new Int32Array(size) : new Float32Array(size));
        }),
      write: (id, data) =>
        during(async () => {
          written.set(id, data.slice());
        }),
      finish: () => during(async () => this.#result(batch, 0), true),
    };
  }

  #result(batch: Batch, milliseconds: number): PassResult {
    const { vocabSize } = this.program;
    const positions = rowPositions(batch);
    const logits = new Float32Array(batch.outputs.length * vocabSize);
    const tokens = new Int32Array(batch.outputs.length).fill(-1);
    const logprobs = new Float32Array(batch.outputs.length).fill(Number.NaN);
    const top = batch.outputs.map(({ row, sampling }, o) => {
      const next = nullToken(batch.tokens[row], positions[row], vocabSize);
      const rowLogits = logits.subarray(o * vocabSize, (o + 1) * vocabSize);
      rowLogits[next] = 1;
      const sequence = batch.sequences.find(({ firstRow, rows }) => row >= firstRow && row < firstRow + rows);
      const alive = sequence !== undefined && !this.#cancelled.has(sequence.slot);
      if (!sampling || !alive) return topLogprobs(rowLogits, 0);
      tokens[o] = next;
      logprobs[o] = tokenLogprob(rowLogits, next);
      return topLogprobs(rowLogits, sampling.topLogprobs);
    });
    return { tokens, logprobs, top, logits: batch.wantLogits ? logits : undefined, milliseconds };
  }

  dispose(): Promise<void> {
    return this.#turns.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
