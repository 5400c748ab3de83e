/** OpenAI's sampling fields as the engine's options. */
import type { GenerateOptions } from '../../../engine/engine.ts';
import { TandemError } from '../../../errors.ts';
import { defined } from '../../defined.ts';
import type { SamplingBody } from './chat-schema.ts';

export function samplingOptions(body: SamplingBody): GenerateOptions {
  if ((body.n ?? 1) > 1)
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'a request asks for one answer',
      given: `n: ${body.n} of them`,
      fix: 'send the request that often, with different seeds',
    });
  return defined({
    temperature: body.temperature,
    // vLLM's clients write −1 for off; 0 is written for "only the best" by those that mean greedy.
    topK: body.top_k === -1 ? 0 : body.top_k,
    topP: body.top_p === 0 ? 1e-6 : body.top_p,
    minP: body.min_p,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    repetitionPenalty: body.repetition_penalty ?? body.repeat_penalty,
    // −1 is llama.cpp's word for a random seed.
    seed: body.seed !== null && body.seed !== undefined && body.seed >= 0 ? body.seed : undefined,
    logitBias: body.logit_bias as Record<number, number> | null | undefined,
    stop: body.stop,
    ignoreEos: body.ignore_eos,
  });
}
