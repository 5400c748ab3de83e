/**
 * How well a model predicts a text, and how far its distributions are from another's. Logits are looked at as passes make
 * them and dropped, so a text may be long and a vocabulary large.
 *
 * The text is cut into windows that do not see each other. Position p of a window predicts token p + 1; the first `skip`
 * positions only give context:
 *
 *     window   [0 … skip … length)      scored p   [skip, length − 1)
 *
 * With the default, skip = window / 2, and windows of 512 these are the numbers that llama.cpp's perplexity tool counts,
 * but for a short last window, which it leaves out.
 */
import { TandemError } from '../errors.ts';
import type { Progress, TakeLogits } from './request.ts';
import { numberIn } from './sampling.ts';

export interface PerplexityOptions {
  /** Tokens of a window, [2, contextLength]. Default: 512, or less where context or text is shorter. */
  window?: number;
  /** Positions of a window that are only context, [0, window − 2]. Default: half of the window. */
  skip?: number;
  signal?: AbortSignal;
  /** Scored tokens, of all. */
  onProgress?: Progress;
}

export const PERPLEXITY_OPTIONS = [
  'window',
  'skip',
  'signal',
  'onProgress',
] as const satisfies readonly (keyof PerplexityOptions)[];

export interface Perplexity {
  /** exp of the mean negative log-likelihood. */
  readonly perplexity: number;
  /** Of the perplexity, from the spread of the tokens. */
  readonly standardError: number;
  /** Mean of −ln p(token), nats. */
  readonly negativeLogLikelihood: number;
  /** Scored tokens. */
  readonly tokens: number;
  readonly windows: number;
  /** As used. */
  readonly window: number;
  readonly skip: number;
}

export interface Divergence {
  /** Kullback–Leibler divergence D(reference ‖ model) per scored position, nats. */
  readonly mean: number;
  readonly standardError: number;
  readonly median: number;
  readonly p99: number;
  readonly maximum: number;
  /** Share of positions whose likeliest token is the same, [0, 1]. */
  readonly sameTop: number;
  readonly model: Perplexity;
  readonly reference: Perplexity;
}

/** What gives logits; an Engine does. */
export interface LogitSource {
  readonly contextLength: number;
  /** `take` gets the logits of positions [from, ids.length), in order. */
  stream(ids: readonly number[], from: number, take: TakeLogits, signal?: AbortSignal): Promise<void>;
}

/** `begin` replaces the first token of every window but the first: for texts that start with a begin token. */
export async function measurePerplexity(
  model: LogitSource,
  ids: readonly number[],
  begin: number | undefined,
  options: PerplexityOptions,
): Promise<Perplexity> {
  const plan = planWindows(ids, begin, model.contextLength, options);
  const losses = new Tally();
  for (const window of plan.windows)
    await model.stream(
      window.slice(0, -1),
      plan.skip,
      (position, logits) => {
        losses.add(loss(logits, window[position + 1]));
        options.onProgress?.({ done: losses.count, total: plan.total });
      },
      options.signal,
    );
  return summary(losses, plan);
}

/** The same windows through both; rows wait for their counterpart, those of one window at most. */
export async function measureDivergence(
  model: LogitSource,
  reference: LogitSource,
  ids: readonly number[],
  begin: number | undefined,
  options: PerplexityOptions,
): Promise<Divergence> {
  const context = Math.min(model.contextLength, reference.contextLength);
  const plan = planWindows(ids, begin, context, options);
  const [losses, referenceLosses, divergences] = [new Tally(), new Tally(), new Tally()];
  let sameTop = 0;
  for (const window of plan.windows) {
    const judge = (position: number, mine: Float32Array, theirs: Float32Array) => {
      const next = window[position + 1];
      losses.add(loss(mine, next));
      referenceLosses.add(loss(theirs, next));
      divergences.add(divergence(theirs, mine));
      if (likeliest(mine) === likeliest(theirs)) sameTop++;
      options.onProgress?.({ done: losses.count, total: plan.total });
    };
    await inPairs(model, reference, window.slice(0, -1), plan.skip, judge, options.signal);
  }
  const sorted = divergences.values.sort((a, b) => a - b);
  const quantile = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return {
    mean: divergences.mean,
    standardError: divergences.standardError,
    median: quantile(0.5),
    p99: quantile(0.99),
    maximum: sorted[sorted.length - 1],
    sameTop: sameTop / divergences.count,
    model: summary(losses, plan),
    reference: summary(referenceLosses, plan),
  };
}

interface WindowPlan {
  readonly windows: readonly (readonly number[])[];
  readonly window: number;
  readonly skip: number;
  /** Scored tokens of all windows. */
  readonly total: number;
}

function planWindows(
  ids: readonly number[],
  begin: number | undefined,
  contextLength: number,
  options: PerplexityOptions,
): WindowPlan {
  const whole = { low: 2, high: contextLength, integer: true };
  const window = Math.min(numberIn('window', options.window, whole, Math.min(512, contextLength)), ids.length);
  const skip = numberIn('skip', options.skip, { low: 0, high: contextLength, integer: true }, defaultSkip(window));
  const windows: number[][] = [];
  for (let start = 0; start < ids.length; start += window) {
    const piece = ids.slice(start, start + window);
    if (piece.length < skip + 2) continue; // nothing of it would be scored
    if (begin !== undefined) piece[0] = begin;
    windows.push(piece);
  }
  if (windows.length === 0)
    throw new TandemError('REQUEST_INVALID', {
      room: 'engine',
      rule: 'a window has at least two tokens more than are skipped',
      given: `${ids.length} tokens in windows of ${window}, ${skip} skipped`,
      fix: 'give a longer text, or a smaller skip',
    });
  return { windows, window, skip, total: windows.reduce((sum, { length }) => sum + length - 1 - skip, 0) };
}

function defaultSkip(window: number): number {
  return Math.max(0, Math.min(window >> 1, window - 2));
}

/** Runs a window through both and calls `judge` for each position as soon as both have it. */
async function inPairs(
  model: LogitSource,
  reference: LogitSource,
  ids: readonly number[],
  from: number,
  judge: (position: number, mine: Float32Array, theirs: Float32Array) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const mine = new Map<number, Float32Array>();
  const theirs = new Map<number, Float32Array>();
  const meet = (position: number) => {
    const [left, right] = [mine.get(position), theirs.get(position)];
    if (left === undefined || right === undefined) return;
    mine.delete(position);
    theirs.delete(position);
    judge(position, left, right);
  };
  const into =
    (rows: Map<number, Float32Array>): TakeLogits =>
    (position, logits) => {
      rows.set(position, logits);
      meet(position);
    };
  // Where one fails the other is stopped, and waited for.
  const stop = new AbortController();
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const runs = [model.stream(ids, from, into(mine), either), reference.stream(ids, from, into(theirs), either)];
  try {
    await Promise.all(runs);
  } finally {
    stop.abort();
    await Promise.allSettled(runs);
  }
}

/** −ln softmax(logits)[token], nats. */
export function loss(logits: Float32Array, token: number): number {
  return logSumExp(logits) - logits[token];
}

/** Σ p·(ln p − ln q) with p = softmax(reference), q = softmax(model), nats; never below 0. */
export function divergence(reference: Float32Array, model: Float32Array): number {
  const [p, q] = [logSumExp(reference), logSumExp(model)];
  let sum = 0;
  for (let i = 0; i < reference.length; i++) {
    const logP = reference[i] - p;
    const weight = Math.exp(logP);
    if (weight > 0) sum += weight * (logP - (model[i] - q)); // 0 · ln 0 is 0
  }
  return Math.max(0, sum);
}

function logSumExp(logits: Float32Array): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return largest + Math.log(sum);
}

/** Index of the largest logit, the lowest of equals. */
export function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

class Tally {
  readonly values: number[] = [];

  add(value: number): void {
    this.values.push(value);
  }
  get count(): number {
    return this.values.length;
  }
  get mean(): number {
    return this.values.reduce((sum, value) => sum + value, 0) / this.count;
  }
  /** Of the mean; 0 for a single value. */
  get standardError(): number {
    const { mean, count } = this;
    if (count < 2) return 0;
    return Math.sqrt(this.values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1) / count);
  }
}

function summary(losses: Tally, { windows, window, skip }: WindowPlan): Perplexity {
  const { mean, standardError, count } = losses;
  const perplexity = Math.exp(mean);
  return {
    perplexity,
    standardError: perplexity * standardError,
    negativeLogLikelihood: mean,
    tokens: count,
    windows: windows.length,
    window,
    skip,
  };
}
