/** Ollama's lines: one JSON object a line, durations in nanoseconds, arguments of calls as objects. */
import type { GenerationEvent, GenerationResult } from '../../../engine/result.ts';
import type { StreamFormat, StreamWriter } from '../../context.ts';

/** How the routes differ: `chat` wraps text in a message, `generate` has it beside. */
export interface Shape {
  delta(part: { text?: string; thinking?: string; calls?: readonly object[] }): object;
}

export const CHAT: Shape = {
  delta: ({ text = '', thinking, calls }) => ({
    message: {
      role: 'assistant',
      content: text,
      ...(thinking === undefined ? {} : { thinking }),
      ...(calls === undefined || calls.length === 0 ? {} : { tool_calls: calls }),
    },
  }),
};

export const GENERATE: Shape = {
  delta: ({ text = '', thinking }) => ({ response: text, ...(thinking === undefined ? {} : { thinking }) }),
};

export function line(model: string, rest: object): string {
  return `${JSON.stringify({ model, created_at: new Date().toISOString(), ...rest })}\n`;
}

export function ollamaStream(model: string, shape: Shape): StreamFormat {
  return {
    contentType: 'application/x-ndjson',
    heartbeat: () => line(model, { ...shape.delta({}), done: false }),
    failure: (error) => `${JSON.stringify({ error: error.message })}\n`,
  };
}

function callOf(name: string, json: string): object {
  let value: unknown;
  try {
    value = JSON.parse(json === '' ? '{}' : json);
  } catch {
    value = { malformed: json };
  }
  return { function: { name, arguments: typeof value === 'object' && value !== null ? value : { value } } };
}

export function figures({ usage, timings, finishReason }: GenerationResult, loadMs: number) {
  const ns = (ms: number) => Math.max(1, Math.round(ms * 1e6));
  return {
    done: true,
    done_reason: finishReason === 'length' ? 'length' : 'stop',
    total_duration: ns(timings.totalMs + loadMs),
    load_duration: ns(loadMs),
    prompt_eval_count: usage.promptTokens,
    prompt_eval_duration: ns(timings.promptMs),
    eval_count: usage.completionTokens,
    eval_duration: ns(timings.generationMs),
  };
}

/** The whole answer of a request that is not streamed. */
export function whole(model: string, shape: Shape, result: GenerationResult, loadMs: number): object {
  const calls = result.toolCalls.map(({ name, arguments: json }) => callOf(name, json));
  const thinking = result.reasoning === '' ? undefined : result.reasoning;
  return {
    model,
    created_at: new Date().toISOString(),
    ...shape.delta({ text: result.text, thinking, calls }),
    ...figures(result, loadMs),
  };
}

export async function writeLines(
  out: StreamWriter,
  events: AsyncIterable<GenerationEvent>,
  { model, shape, loadMs }: { model: string; shape: Shape; loadMs: number },
): Promise<void> {
  const calls: { name: string; json: string }[] = [];
  const say = (part: Parameters<Shape['delta']>[0]) => out.write(line(model, { ...shape.delta(part), done: false }));
  for await (const event of events) {
    switch (event.type) {
      case 'text':
        await say({ text: event.text });
        break;
      case 'reasoning':
        await say({ thinking: event.text });
        break;
      case 'tool-call-start':
        calls[event.index] = { name: event.name, json: '' };
        break;
      case 'tool-call-arguments':
        calls[event.index].json += event.fragment;
        break;
      case 'tool-call-end':
        await say({ calls: [callOf(calls[event.index].name, calls[event.index].json)] });
        break;
      case 'done':
        await out.write(line(model, { ...shape.delta({}), ...figures(event.result, loadMs) }));
        break;
      default:
    }
  }
}
