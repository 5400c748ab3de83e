/**
 * The input of one pass, and its result. Rows of one sequence are adjacent and their positions ascend by one:
 *
 *     rows      [firstRow, firstRow + rows)
 *     positions [firstPosition, firstPosition + rows)
 *     context   [0, firstPosition + rows) after the append, in `pages` (64 tokens each, in order)
 *
 * Row r of the sequence attends positions [0, firstPosition + r].
 */
import type { Phase } from './program.ts';

export interface BatchSequence {
  /** Index of the sequence's cancel flag, [0, 4096); not shared by two sequences of a batch. */
  readonly slot: number;
  readonly firstRow: number;
  readonly rows: number;
  readonly firstPosition: number;
  /** Block table: page ids, at least ⌈(firstPosition + rows) / 64⌉ of them. */
  readonly pages: Int32Array;
}

/**
 * How one output row is sampled. Order: bias, penalties, then greedy if temperature is 0; else divide by temperature,
 * keep top-k, top-p of what is left, min-p of what is left, draw. Candidates are ordered by logit, ties by lowest id.
 * The draw is u = uniform(seed, position); the first candidate whose cumulative probability exceeds u·(kept mass) wins.
 */
export interface SamplingRecord {
  /** 0 = greedy. */
  readonly temperature: number;
  /** 0 = off. */
  readonly topK: number;
  /** 1 = off. */
  readonly topP: number;
  /** 0 = off. */
  readonly minP: number;
  /** 1 = off: logits of penalized tokens are divided (if > 0) or multiplied (if < 0) by it. */
  readonly repetitionPenalty: number;
  /** 0 = off: subtracted once from tokens with count > 0. */
  readonly presencePenalty: number;
  /** 0 = off: subtracted count times. */
  readonly frequencyPenalty: number;
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Position of the token to be drawn: the same wherever and whenever it is drawn. */
  readonly position: number;
  /** How many alternatives to report with log-probabilities (0–20). */
  readonly topLogprobs: number;
  /** Tokens that occurred: `repetitionPenalty` sees all of them, presence/frequency those with count > 0. */
  readonly penaltyTokens: Int32Array;
  readonly penaltyCounts: Int32Array;
  readonly biasTokens: Int32Array;
  readonly biasValues: Float32Array;
  /** Optional grammar mask: bit t of word t>>5 set = token t allowed; ⌈V/32⌉ words. */
  readonly mask?: Uint32Array;
}

/** Everything off: the largest logit wins. */
export const GREEDY: SamplingRecord = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seedLow: 0,
  seedHigh: 0,
  position: 0,
  topLogprobs: 0,
  penaltyTokens: new Int32Array(0),
  penaltyCounts: new Int32Array(0),
  biasTokens: new Int32Array(0),
  biasValues: new Float32Array(0),
};

export interface OutputRow {
  readonly row: number;
  /** null: logits only, no token is drawn (result token −1). */
  readonly sampling: SamplingRecord | null;
}

export interface Batch {
  readonly tokens: Int32Array;
  readonly sequences: readonly BatchSequence[];
  /** Ascending by row; several per sequence are allowed. */
  readonly outputs: readonly OutputRow[];
  /** Return full logits [O, V] (for `logits`, `compare`, `perplexity` only). */
  readonly wantLogits: boolean;
}

/** What a pass gives back. Log-probabilities are of the raw logits (log-softmax, natural log). */
export interface PassResult {
  /** One per output; −1 where the sequence was cancelled or no sampling was asked. */
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  /** Per output, descending; empty where not asked. */
  readonly top: readonly { readonly tokens: Int32Array; readonly logprobs: Float32Array }[];
  /** [O, V] row-major when asked. */
  readonly logits?: Float32Array;
  /** Wall time of the pass, milliseconds. */
  readonly milliseconds: number;
}

/** By which placements a pass runs: `decode` where every sequence has one row. */
export function phaseOf(batch: Batch): Phase {
  return batch.sequences.every(({ rows }) => rows === 1) ? 'decode' : 'prefill';
}

/** Position of every row. */
export function rowPositions(batch: Batch): Int32Array {
  const positions = new Int32Array(batch.tokens.length);
  for (const sequence of batch.sequences)
    for (let i = 0; i < sequence.rows; i++) positions[sequence.firstRow + i] = sequence.firstPosition + i;
  return positions;
}
