/**
 * An Executable that computes nothing but notices everything: its "K and V" are the tokens themselves, kept in pages,
 * and a token is drawn from a hash of the whole context as read back through the block table. A page with two writers,
 * a wrong position or a lost row changes the text, so equal texts prove equal bookkeeping.
 */
import type { Executable, Stepper } from '../../src/backend/backend.ts';
import type { Batch, PassResult } from '../../src/program/batch.ts';
import { PAGE_TOKENS, type Program } from '../../src/program/program.ts';
import { uniform } from '../../src/program/uniform.ts';

export interface FakeOptions {
  readonly pages: number;
  readonly vocabSize?: number;
  readonly contextLength?: number;
  /** Waited for in every pass; rejects the pass when it rejects. */
  readonly during?: (batch: Batch) => Promise<void> | void;
  /** Pretended duration. */
  readonly milliseconds?: (batch: Batch) => number;
}

export class FakeExecutable implements Executable {
  readonly program: Program;
  readonly pages: number;
  readonly description = { backend: 'fake' };
  readonly passes: Batch[] = [];
  readonly cancelled: number[] = [];
  disposed = false;
  readonly #options: FakeOptions;
  readonly #cells: Int32Array;
  readonly #cancel = new Set<number>();
  #busy = false;

  constructor(options: FakeOptions) {
    const { pages, vocabSize = 97, contextLength = 4096 } = options;
    this.#options = options;
    this.pages = pages;
    this.#cells = new Int32Array(pages * PAGE_TOKENS).fill(-1);
    this.program = {
      name: 'fake',
      vocabSize,
      contextLength,
      values: [],
      weights: [],
      kv: { pageTokens: PAGE_TOKENS, type: 'f32', layers: [{ streams: [{ heads: 1, width: 1 }] }] },
      steps: [],
      logits: 0,
    };
  }

  async run(batch: Batch): Promise<PassResult> {
    if (this.#busy) throw new Error('passes overlap');
    this.#busy = true;
    this.#cancel.clear();
    try {
      this.passes.push(batch);
      await this.#options.during?.(batch);
      return this.compute(batch);
    } finally {
      this.#busy = false;
    }
  }

  /** One pass, synchronously. */
  compute(batch: Batch): PassResult {
    const { vocabSize } = this.program;
    const written = new Set<number>();
    const slots = new Set<number>();
    const contextOf: { slot: number; hash: number; length: number }[] = [];
    let row = 0;
    for (const sequence of batch.sequences) {
      if (slots.has(sequence.slot)) throw new Error(`slot ${sequence.slot} twice`);
      slots.add(sequence.slot);
      if (sequence.firstRow !== row || sequence.rows < 1) throw new Error('rows are not adjacent');
      const cell = (position: number) => sequence.pages[position >> 6] * PAGE_TOKENS + (position & 63);
      let hash = HASH_START;
      for (let p = 0; p < sequence.firstPosition; p++) hash = hashStep(hash, this.#cells[cell(p)]);
      for (let r = 0; r < sequence.rows; r++, row++) {
        const at = cell(sequence.firstPosition + r);
        if (!(at >= 0) || written.has(at)) throw new Error(`cell ${at} written twice or missing`);
        written.add(at);
        this.#cells[at] = batch.tokens[row];
        hash = hashStep(hash, this.#cells[at]);
        contextOf.push({ slot: sequence.slot, hash: hash >>> 0, length: sequence.firstPosition + r + 1 });
      }
    }
    if (row !== batch.tokens.length) throw new Error('rows are missing');
    const tokens: number[] = [];
    const logprobs: number[] = [];
    const top: PassResult['top'][number][] = [];
    const logits = batch.wantLogits ? new Float32Array(batch.outputs.length * vocabSize) : undefined;
    batch.outputs.forEach(({ row, sampling }, o) => {
      const { slot, hash, length } = contextOf[row];
      logits?.fill(hash / 2 ** 32, o * vocabSize, (o + 1) * vocabSize);
      if (sampling === null || this.#cancel.has(slot)) tokens.push(-1);
      else {
        if (sampling.position !== length) throw new Error('the position of a draw is that of its token');
        const counted = sampling.penaltyCounts.reduce((sum, count) => sum + count, 0);
        const u = uniform((hash ^ sampling.seedLow) >>> 0, sampling.seedHigh + counted, sampling.position);
        tokens.push(Math.floor(u * vocabSize));
      }
      logprobs.push(-hash / 2 ** 32);
      const wanted = sampling?.topLogprobs ?? 0;
      top.push({
        tokens: Int32Array.from({ length: wanted }, (_, i) => i),
        logprobs: Float32Array.from({ length: wanted }, (_, i) => -1 - i),
      });
    });
    return {
      tokens: Int32Array.from(tokens),
      logprobs: Float32Array.from(logprobs),
      top,
      logits,
      milliseconds: this.#options.milliseconds?.(batch) ?? 1,
    };
  }

  cancel(slot: number): void {
    this.cancelled.push(slot);
    this.#cancel.add(slot);
  }
  start(): Promise<Stepper> {
    return Promise.reject(new Error('the fake has no steps'));
  }
  async dispose(): Promise<void> {
    this.disposed = true;
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

const HASH_START = 0x811c9dc5;
function hashStep(hash: number, token: number): number {
  return Math.imul(hash ^ token, 0x01000193);
}

/** FNV-1a over the ids. */
export function hashOf(tokens: Iterable<number>): number {
  let hash = HASH_START;
  for (const token of tokens) hash = hashStep(hash, token);
  return hash >>> 0;
}
