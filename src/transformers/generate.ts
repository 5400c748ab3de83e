/** One answer: ids in, ids out, a streamer fed and stopping criteria asked on the way. */
import type { Engine } from '../engine/engine.ts';
import { isAbort } from '../errors.ts';
import { engineOptions, type GenerationOptions } from './options.ts';
import { type StoppingCriteria, wantsToStop } from './stopping.ts';
import type { PreTrainedTokenizer } from './tokenizer.ts';

export interface Answer {
  /** New ids, the one that ended it included. */
  readonly tokens: readonly number[];
  /** Its text up to a stop text; undefined where none stopped it. */
  readonly stopped?: string;
}

/** What a person reads: without control tokens and without what stopped it. */
export function textOf({ tokens, stopped }: Answer, tokenizer: PreTrainedTokenizer): string {
  return stopped ?? tokenizer.decode(tokens, { skip_special_tokens: true });
}

/** As many as `num_return_sequences`, computed together. */
export async function answers(
  engine: Engine,
  prompt: ArrayLike<number> & Iterable<number>,
  options: GenerationOptions,
): Promise<Answer[]> {
  const given = engineOptions(options, prompt.length, engine.samplingDefaults);
  const seeds = Array.from({ length: options.num_return_sequences ?? 1 }, (_, i) =>
    given.seed === undefined ? undefined : Number(given.seed) + i,
  );
  return Promise.all(seeds.map((seed) => answer(engine, prompt, options, { ...given, seed })));
}

async function answer(
  engine: Engine,
  prompt: ArrayLike<number> & Iterable<number>,
  { streamer, stopping_criteria }: GenerationOptions,
  given: ReturnType<typeof engineOptions>,
): Promise<Answer> {
  const criteria = stopping_criteria ? ([stopping_criteria].flat() as StoppingCriteria[]) : [];
  const watched = Boolean(streamer) || criteria.length > 0;
  // Tokens are told one by one where log-probabilities are asked for.
  const generation = engine.generate(prompt, { ...given, ...(watched && { logprobs: 0 }) });
  let stopped = false;
  if (watched) {
    const ids = Array.from(prompt, BigInt);
    try {
      await generation.ready;
      streamer?.put([[...ids]]);
      for await (const event of generation) {
        if (event.type !== 'token' || stopped) continue;
        ids.push(BigInt(event.id));
        streamer?.put([[BigInt(event.id)]]);
        if (!wantsToStop(criteria, ids)) continue;
        stopped = true;
        generation.abort();
      }
    } catch (error) {
      if (!stopped || !isAbort(error)) throw error;
    }
    streamer?.end();
  }
  const result = stopped ? (generation.partial ?? (await generation)) : await generation;
  return { tokens: result.tokens, ...(result.stopString !== undefined && { stopped: result.text }) };
}
