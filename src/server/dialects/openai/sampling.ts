/** OpenAI's sampling fields as the engine's options. */
import type { GenerateOptions } from '../../../engine/generate-options.ts';
import { TandemError } from '../../../errors.ts';
import type { ServerOptions } from '../../context.ts';
import { defined, nonEmpty } from '../../defined.ts';
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
    stop: nonEmpty(body.stop),
    ignoreEos: body.ignore_eos,
    format: outputFormat(body),
  });
}

/** Most tokens of an answer: what a client names, or the server; undefined: what the context holds. */
export function answerLimit(asked: number | null | undefined, server: ServerOptions): number | undefined {
  return asked === -1 ? undefined : (asked ?? server.maxTokens);
}

function outputFormat(body: SamplingBody): GenerateOptions['format'] {
  const { response_format: format, json_schema: schema, grammar } = body;
  const forms = [format && format.type !== 'text', schema !== undefined && schema !== null, grammar];
  if (forms.filter(Boolean).length > 1)
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'an answer has one form',
      given: 'response_format, json_schema and grammar ask for several',
      fix: 'send one of them',
    });
  if (grammar) return { type: 'ebnf', grammar };
  if (schema !== undefined && schema !== null) return { type: 'schema', schema };
  switch (format?.type) {
    case 'json_object':
      return format.schema === undefined || format.schema === null
        ? { type: 'json' }
        : { type: 'schema', schema: format.schema };
    case 'json_schema':
      return {
        type: 'schema',
        schema: needed(format.json_schema?.schema ?? format.schema, 'json_schema.schema'),
        strict: format.json_schema?.strict === true,
      };
    case 'regex':
      return { type: 'regex', pattern: needed(format.pattern, 'pattern') };
    case 'grammar':
      return { type: 'ebnf', grammar: needed(format.grammar, 'grammar') };
    default:
      return undefined;
  }
}

function needed<T>(value: T | null | undefined, field: string): T {
  if (value !== null && value !== undefined) return value;
  throw new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: 'response_format brings the form it names',
    given: `response_format.${field}: it is missing`,
    fix: 'send it, or another type',
  });
}
