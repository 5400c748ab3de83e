/** From Ollama's bodies to a conversation and the engine's options. */
import type { ChatOptions } from '../../../engine/generate-options.ts';
import { TandemError } from '../../../errors.ts';
import type { ChatMessage } from '../../../text/messages.ts';
import { defined, nonEmpty } from '../../defined.ts';
import type { ChatBody, GenerateBody } from './schema.ts';

export function chatOptions(body: ChatBody | GenerateBody): ChatOptions {
  const given = body.options ?? {};
  const effort = typeof body.think === 'string' ? body.think : undefined;
  return defined({
    // −1 and −2 are Ollama's words for "until it ends" and "until the context is full".
    maxTokens: given.num_predict && given.num_predict > 0 ? given.num_predict : undefined,
    temperature: given.temperature,
    topK: given.top_k,
    topP: given.top_p === 0 ? 1e-6 : given.top_p,
    minP: given.min_p,
    seed: given.seed !== undefined && given.seed !== null && given.seed >= 0 ? given.seed : undefined,
    stop: nonEmpty(given.stop),
    repetitionPenalty: given.repeat_penalty,
    presencePenalty: given.presence_penalty,
    frequencyPenalty: given.frequency_penalty,
    format: formatOf(body.format),
    thinking: body.think === undefined || body.think === null ? undefined : body.think !== false,
    templateVariables: effort === undefined ? undefined : { reasoning_effort: effort },
  });
}

function formatOf(format: ChatBody['format']): ChatOptions['format'] {
  if (format === undefined || format === null || format === '') return undefined;
  if (typeof format !== 'string') return { type: 'schema', schema: format };
  if (format === 'json') return { type: 'json' };
  throw new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: 'format is "json" or a JSON Schema',
    given: JSON.stringify(format.slice(0, 80)),
    fix: 'leave it out for free text',
  });
}

export function refuseImages(images: readonly string[] | null | undefined): void {
  if (images && images.length > 0)
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'the models of this server read text only',
      given: `${images.length} image${images.length === 1 ? '' : 's'}`,
      fix: 'send text',
    });
}

export function messagesOf({ messages }: ChatBody): ChatMessage[] {
  return (messages ?? []).map((message) => {
    refuseImages(message.images);
    const calls = message.tool_calls ?? [];
    return {
      role: message.role,
      content: message.content ?? '',
      ...defined({ reasoning: message.thinking, name: message.tool_name, toolCallId: message.tool_call_id }),
      ...(calls.length > 0
        ? {
            toolCalls: calls.map(({ id, function: { name, arguments: given } }) => ({
              ...defined({ id }),
              name,
              arguments: typeof given === 'string' ? given : JSON.stringify(given ?? {}),
            })),
          }
        : {}),
    };
  });
}

const UNITS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1e3, m: 60e3, h: 3600e3 };

/** Milliseconds, below 0 for ever: Go's durations (`5m`, `1h30m`), numbers are seconds. Undefined where nothing was said. */
export function keepAliveMs(value: string | number | null | undefined): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'number') return value * 1000;
  const text = value.trim();
  if (/^-?\d+$/.test(text)) return Number(text) * 1000;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)];
  const ms = parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit], 0);
  if (parts.length > 0 && parts.map(([part]) => part).join('') === text.replace(/^-/, ''))
    return text.startsWith('-') ? -ms : ms;
  throw new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: 'keep_alive is a duration',
    given: `keep_alive: ${JSON.stringify(value.slice(0, 40))}`,
    fix: 'write seconds, or like "5m" or "1h30m"; 0 unloads, -1 keeps for ever',
  });
}
