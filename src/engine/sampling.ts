/**
 * How tokens are drawn: what a user writes (`SamplingOptions`), what it becomes once checked and completed
 * (`SamplingSettings`), and what one draw hands to the backend (`SamplingRecord`). The draw itself is an op.
 */
import { TandemError } from '../errors.ts';
import type { SamplingRecord } from '../program/batch.ts';
import type { Guide } from './guide.ts';

/** All fields are optional; what is absent comes from the model's generation config, else is off (greedy). */
export interface SamplingOptions {
  /** 0 = greedy (always the best token); else [0, 100]. Logits are divided by it. */
  temperature?: number;
  /** Keep the k best tokens; 0 = all. */
  topK?: number;
  /** Keep the best tokens that make up this much probability, (0, 1]; 1 = all. */
  topP?: number;
  /** Drop tokens less probable than this share of the best one, [0, 1]; 0 = none. */
  minP?: number;
  /** Logits of tokens in the prompt or the generated text are divided (> 0) or multiplied (< 0) by it, (0, 100]; 1 = off. */
  repetitionPenalty?: number;
  /** Subtracted once from tokens that were generated, [−100, 100]; 0 = off. */
  presencePenalty?: number;
  /** Subtracted from tokens once per time they were generated, [−100, 100]; 0 = off. */
  frequencyPenalty?: number;
  /** Token id → number added to its logit, each in [−100, 100]. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** 0 … 2⁶⁴ − 1. The same seed, prompt and options give the same text. Absent: one is chosen and reported. */
  seed?: number | bigint;
  /** `true`: the log-probability of every token; a number [0, 20]: also that many alternatives. */
  logprobs?: boolean | number;
}

/** Checked and complete. Numbers are rounded to f32, so that every backend sees the same. */
export interface SamplingSettings {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly biasTokens: Int32Array;
  readonly biasValues: Float32Array;
  readonly seed: number | bigint;
  /** −1: log-probabilities were not asked. */
  readonly topLogprobs: number;
}

export type SamplingDefaults = Pick<
  SamplingOptions,
  'temperature' | 'topK' | 'topP' | 'minP' | 'repetitionPenalty' | 'presencePenalty' | 'frequencyPenalty'
>;

/** REQUEST_INVALID in the house's form. */
export function invalid(field: string, rule: string, value: unknown, fix?: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'engine',
    rule: `${field} is ${rule}`,
    given: `got ${show(value)}`,
    fix,
  });
}

function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

interface Range {
  readonly low: number;
  readonly high: number;
  /** The low end itself is not allowed. */
  readonly open?: boolean;
  readonly integer?: boolean;
}

/** `value` when it is a number in the range, `fallback` when it is absent, else REQUEST_INVALID. */
export function numberIn(field: string, value: unknown, range: Range, fallback: number): number {
  if (value === undefined || value === null) return fallback;
  const { low, high, open = false, integer = false } = range;
  const good =
    typeof value === 'number' &&
    (open ? value > low : value >= low) &&
    value <= high &&
    (!integer || Number.isInteger(value));
  if (!good)
    throw invalid(field, `${integer ? 'an integer' : 'a number'} in ${open ? '(' : '['}${low}, ${high}]`, value);
  return value as number;
}

/** Checks `options`, takes what is absent from `defaults` (else off), chooses a seed where there is none. */
export function samplingSettings(
  options: SamplingOptions,
  defaults: SamplingDefaults,
  vocabSize: number,
): SamplingSettings {
  const real = (field: keyof SamplingDefaults, range: Range, off: number) =>
    Math.fround(numberIn(field, options[field] ?? defaults[field], range, off));
  const { logprobs } = options;
  const bias = biasEntries(options.logitBias, vocabSize);
  return {
    temperature: real('temperature', { low: 0, high: 100 }, 0),
    topK: real('topK', { low: 0, high: 1_000_000, integer: true }, 0),
    topP: real('topP', { low: 0, high: 1, open: true }, 1),
    minP: real('minP', { low: 0, high: 1 }, 0),
    repetitionPenalty: real('repetitionPenalty', { low: 0, high: 100, open: true }, 1),
    presencePenalty: real('presencePenalty', { low: -100, high: 100 }, 0),
    frequencyPenalty: real('frequencyPenalty', { low: -100, high: 100 }, 0),
    biasTokens: Int32Array.from(bias, ([id]) => id),
    biasValues: Float32Array.from(bias, ([, value]) => value),
    seed: checkedSeed(options.seed),
    topLogprobs:
      typeof logprobs === 'boolean'
        ? logprobs
          ? 0
          : -1
        : numberIn('logprobs', logprobs, { low: 0, high: 20, integer: true }, -1),
  };
}

function biasEntries(bias: SamplingOptions['logitBias'], vocabSize: number): [number, number][] {
  if (bias === undefined || bias === null) return [];
  if (typeof bias !== 'object') throw invalid('logitBias', 'an object or Map from token id to number', bias);
  const entries: [number, number][] =
    bias instanceof Map ? [...bias] : Object.entries(bias).map(([k, v]) => [Number(k), v]);
  for (const [id, value] of entries) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw invalid('a logitBias key', `a token id in [0, ${vocabSize})`, id);
    numberIn(`logitBias[${id}]`, value, { low: -100, high: 100 }, 0);
  }
  return entries.sort(([a], [b]) => a - b);
}

function checkedSeed(seed: SamplingOptions['seed']): number | bigint {
  if (seed === undefined || seed === null) {
    const [low, high] = crypto.getRandomValues(new Uint32Array(2));
    return (high >>> 11) * 2 ** 32 + low; // 53 bits: exact as a number, so a user can type it back
  }
  const good = typeof seed === 'bigint' ? seed >= 0n && seed < 1n << 64n : Number.isSafeInteger(seed) && seed >= 0;
  if (!good) throw invalid('seed', 'an integer in [0, 2^53) or a bigint in [0, 2^64)', seed);
  return seed;
}

/** One sequence's settings with what its penalties have to know. */
export class Sampler {
  readonly settings: SamplingSettings;
  /** Forbids tokens that would break a form. */
  readonly guide: Guide | undefined;
  readonly #seedLow: number;
  readonly #seedHigh: number;
  readonly #penalized: boolean;
  readonly #indexOf = new Map<number, number>();
  #tokens = new Int32Array(0);
  #counts = new Int32Array(0);

  constructor(settings: SamplingSettings, prompt: Int32Array, guide?: Guide) {
    this.settings = settings;
    this.guide = guide;
    const seed = BigInt(settings.seed);
    this.#seedLow = Number(seed & 0xffffffffn);
    this.#seedHigh = Number(seed >> 32n);
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = settings;
    this.#penalized = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
    if (this.#penalized) for (const token of prompt) this.#see(token, 0);
  }

  /** A token was generated. */
  count(token: number): void {
    if (this.#penalized) this.#see(token, 1);
    this.guide?.accept(token);
  }

  #see(token: number, times: number): void {
    let index = this.#indexOf.get(token);
    if (index === undefined) {
      index = this.#indexOf.size;
      this.#indexOf.set(token, index);
      if (index === this.#tokens.length) {
        this.#tokens = grown(this.#tokens);
        this.#counts = grown(this.#counts);
      }
      this.#tokens[index] = token;
    }
    this.#counts[index] += times;
  }

  /** The record that draws the token at `position`. Valid until the next `count`. */
  record(position: number): SamplingRecord {
    const { settings } = this;
    return {
      temperature: settings.temperature,
      topK: settings.topK,
      topP: settings.topP,
      minP: settings.minP,
      repetitionPenalty: settings.repetitionPenalty,
      presencePenalty: settings.presencePenalty,
      frequencyPenalty: settings.frequencyPenalty,
      seedLow: this.#seedLow,
      seedHigh: this.#seedHigh,
      position,
      topLogprobs: Math.max(settings.topLogprobs, 0),
      penaltyTokens: this.#tokens.subarray(0, this.#indexOf.size),
      penaltyCounts: this.#counts.subarray(0, this.#indexOf.size),
      biasTokens: settings.biasTokens,
      biasValues: settings.biasValues,
      mask: this.guide?.mask(),
    };
  }
}

function grown(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(Math.max(64, array.length * 2));
  larger.set(array);
  return larger;
}
