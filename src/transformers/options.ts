/**
 * Generation options by the names of @huggingface/transformers, and what they are here. An option that would change the
 * result and is not known is an error; one that only concerns how that library computes is a warning.
 */
import type { GenerateOptions } from '../engine/generate-options.ts';
import { checkOptionNames } from '../engine/option-names.ts';
import type { SamplingDefaults } from '../engine/sampling.ts';
import { TandemError } from '../errors.ts';
import type { StoppingCriteria } from './stopping.ts';
import type { Streamer } from './streamers.ts';

/** Options of a call; the defaults are the model's own (`generation_config.json`), as there. */
export interface GenerationOptions {
  /** Most new tokens. Default: what the context holds (the library's is 20 tokens with the prompt). */
  max_new_tokens?: number;
  /** Most tokens with the prompt. */
  max_length?: number;
  /** False takes the likeliest token, whatever the temperature. Default: the model's. */
  do_sample?: boolean;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  repetition_penalty?: number;
  /** Ids that end the text beside the model's own. */
  eos_token_id?: number | readonly number[];
  /** Texts that end the text. */
  stop_strings?: string | readonly string[];
  /** Answers to the same prompt; more than one needs `do_sample`. */
  num_return_sequences?: number;
  /** Only 1: there is no beam search here. */
  num_beams?: number;
  streamer?: Streamer | null;
  stopping_criteria?: StoppingCriteria | readonly StoppingCriteria[] | null;
  /** Not of that library: stops it; the call rejects with ABORTED. */
  signal?: AbortSignal;
  /** Not of that library: same seed, same text. */
  seed?: number;
}

const GENERATION_OPTIONS = [
  'max_new_tokens',
  'max_length',
  'do_sample',
  'temperature',
  'top_k',
  'top_p',
  'min_p',
  'repetition_penalty',
  'eos_token_id',
  'stop_strings',
  'num_return_sequences',
  'num_beams',
  'streamer',
  'stopping_criteria',
  'signal',
  'seed',
] as const satisfies readonly (keyof GenerationOptions)[];

/** Of the library's own when it samples and neither the call nor the model says. */
const SAMPLED = { temperature: 1, topK: 50, topP: 1 };

/** For `Engine.generate`. REQUEST_INVALID. */
export function engineOptions(
  options: GenerationOptions,
  promptLen: number,
  defaults: SamplingDefaults,
): GenerateOptions {
  const { max_new_tokens, max_length, num_beams = 1, eos_token_id, stop_strings, seed, signal } = options;
  if (num_beams !== 1) throw unsupported('num_beams', num_beams, 'there is no beam search; leave it out');
  if (
    options.num_return_sequences !== undefined &&
    !(Number.isInteger(options.num_return_sequences) && options.num_return_sequences >= 1)
  )
    throw unsupported('num_return_sequences', options.num_return_sequences, 'give a whole number, 1 or more');
  const sampled = options.do_sample ?? (defaults.temperature ?? 0) > 0;
  if ((options.num_return_sequences ?? 1) > 1 && !sampled)
    throw unsupported(
      'num_return_sequences',
      options.num_return_sequences,
      'they would all be the same; add do_sample: true',
    );
  if (max_new_tokens === undefined && max_length !== undefined && max_length <= promptLen)
    throw unsupported('max_length', max_length, `the prompt has ${promptLen} tokens already; use max_new_tokens`);
  const { top_k, top_p, min_p, repetition_penalty } = options;
  const sampling = sampled
    ? {
        temperature: options.temperature ?? (defaults.temperature || SAMPLED.temperature),
        topK: top_k ?? defaults.topK ?? SAMPLED.topK,
        topP: top_p ?? defaults.topP ?? SAMPLED.topP,
        minP: min_p,
      }
    : { temperature: 0 };
  return {
    ...sampling,
    repetitionPenalty: repetition_penalty,
    maxTokens: max_new_tokens ?? (max_length === undefined ? undefined : max_length - promptLen),
    stopTokens: eos_token_id === undefined ? undefined : ([eos_token_id].flat() as number[]),
    stop: stop_strings,
    seed,
    signal,
  };
}

export function checkGenerationOptions(what: string, options: object, more: readonly string[] = []): void {
  checkOptionNames(what, options, [...GENERATION_OPTIONS, ...more]);
}

function unsupported(name: string, value: unknown, fix: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule: `${name} is one that can be computed here`,
    given: `it is ${String(value)}`,
    fix,
  });
}
