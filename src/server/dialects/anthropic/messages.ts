/** Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`: what Claude Code and its SDKs speak. */
import type { GenerationEvent, GenerationResult } from '../../../engine/result.ts';
import type { TandemError } from '../../../errors.ts';
import type { Dialect, RunningGeneration, StreamFormat, StreamWriter } from '../../context.ts';
import { defined } from '../../defined.ts';
import { httpFailure } from '../../failures.ts';
import { post } from '../../routes.ts';
import { sseEvent } from '../../stream.ts';
import { chatOptions, conversation, promptOptions } from './request.ts';
import { countBody, messagesBody } from './schema.ts';

function anthropicError(error: TandemError) {
  return { type: 'error', error: { type: httpFailure(error).type, message: error.message } };
}

const STREAM: StreamFormat = {
  contentType: 'text/event-stream',
  heartbeat: () => sseEvent({ type: 'ping' }, 'ping'),
  failure: (error) => sseEvent(anthropicError(error), 'error'),
};

export const anthropic: Dialect = {
  name: 'anthropic',
  owns: (path) => /^\/(v1\/)?messages(\/|$)/.test(path),
  errorBody: anthropicError,
  mount(app, server) {
    post(app, server, anthropic, {
      paths: ['/v1/messages', '/messages'],
      tag: 'Anthropic',
      summary: 'Answer a conversation',
      body: messagesBody,
      async handle(request, body) {
        const messages = conversation(body);
        const options = chatOptions(body);
        return server.answer(request, anthropic, {
          model: body.model,
          start: (engine, signal) => engine.chat(messages, { ...options, signal }),
          streamed: body.stream === true,
          format: STREAM,
          whole,
          write: writeEvents,
        });
      },
    });
    post(app, server, anthropic, {
      paths: ['/v1/messages/count_tokens', '/messages/count_tokens'],
      tag: 'Anthropic',
      summary: 'Tokens a conversation would take',
      body: countBody,
      async handle(request, body) {
        const messages = conversation(body);
        const { tools, thinking, thinkingBudget } = promptOptions(body);
        const shape = defined({ tools, thinking, thinkingBudget });
        const ids = await server.borrow(request, body.model, (engine, signal) =>
          engine.promptTokens(messages, shape, signal),
        );
        return Response.json({ input_tokens: ids.length });
      },
    });
  },
};

function stopReason(result: GenerationResult): string {
  if (result.toolCalls.length > 0 && result.finishReason === 'stop') return 'tool_use';
  if (result.finishReason === 'length') return 'max_tokens';
  return result.stopString === undefined ? 'end_turn' : 'stop_sequence';
}

function usageOf({ usage }: GenerationResult) {
  return {
    input_tokens: usage.promptTokens - usage.cachedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: usage.cachedTokens,
    output_tokens: usage.completionTokens,
  };
}

function inputOf(json: string): unknown {
  try {
    const value: unknown = JSON.parse(json === '' ? '{}' : json);
    return typeof value === 'object' && value !== null ? value : { value };
  } catch {
    return { malformed: json }; // the model wrote no JSON: the client sees what it wrote
  }
}

function head(model: string) {
  return { id: `msg_${crypto.randomUUID().replaceAll('-', '')}`, type: 'message', role: 'assistant', model };
}

function whole({ model }: RunningGeneration, result: GenerationResult) {
  const content: object[] = [];
  if (result.reasoning !== '') content.push({ type: 'thinking', thinking: result.reasoning, signature: '' });
  if (result.text !== '') content.push({ type: 'text', text: result.text });
  for (const { id, name, arguments: json } of result.toolCalls)
    content.push({ type: 'tool_use', id, name, input: inputOf(json) });
  return {
    ...head(model.id),
    content,
    stop_reason: stopReason(result),
    stop_sequence: result.stopString ?? null,
    usage: usageOf(result),
  };
}

/** Blocks are open one at a time, numbered from 0. */
class Blocks {
  #index = -1;
  #open: 'text' | 'thinking' | 'tool' | undefined;

  /** Events that bring the stream into a block of this kind. */
  enter(kind: 'text' | 'thinking'): string {
    if (this.#open === kind) return '';
    const block = kind === 'text' ? { type: 'text', text: '' } : { type: 'thinking', thinking: '', signature: '' };
    return this.leave() + this.start(kind, block);
  }

  start(kind: 'text' | 'thinking' | 'tool', block: object): string {
    const left = this.leave();
    this.#open = kind;
    this.#index++;
    return left + event({ type: 'content_block_start', index: this.#index, content_block: block });
  }

  delta(delta: object): string {
    return event({ type: 'content_block_delta', index: this.#index, delta });
  }

  leave(): string {
    if (this.#open === undefined) return '';
    const signed = this.#open === 'thinking' ? this.delta({ type: 'signature_delta', signature: '' }) : '';
    this.#open = undefined;
    return signed + event({ type: 'content_block_stop', index: this.#index });
  }
}

function event(data: { readonly type: string } & Record<string, unknown>): string {
  return sseEvent(data, data.type);
}

async function writeEvents(out: StreamWriter, { generation, model }: RunningGeneration): Promise<void> {
  const blocks = new Blocks();
  let started = false;
  const begin = (promptTokens: number, cached: number) => {
    if (started) return '';
    started = true;
    const usage = {
      input_tokens: promptTokens - cached,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: cached,
      output_tokens: 0,
    };
    const message = { ...head(model.id), content: [], stop_reason: null, stop_sequence: null, usage };
    return event({ type: 'message_start', message });
  };
  for await (const piece of generation) {
    if (piece.type === 'prefill') await out.write(begin(piece.total, piece.cached));
    else if (piece.type === 'done') {
      const { result } = piece;
      const delta = { stop_reason: stopReason(result), stop_sequence: result.stopString ?? null };
      await out.write(
        begin(result.usage.promptTokens, result.usage.cachedTokens) +
          blocks.leave() +
          event({ type: 'message_delta', delta, usage: usageOf(result) }) +
          event({ type: 'message_stop' }),
      );
    } else await out.write(begin(0, 0) + pieceEvents(blocks, piece));
  }
}

function pieceEvents(blocks: Blocks, piece: Exclude<GenerationEvent, { type: 'prefill' | 'done' }>): string {
  switch (piece.type) {
    case 'text':
      return blocks.enter('text') + blocks.delta({ type: 'text_delta', text: piece.text });
    case 'reasoning':
      return blocks.enter('thinking') + blocks.delta({ type: 'thinking_delta', thinking: piece.text });
    case 'tool-call-start':
      return blocks.start('tool', { type: 'tool_use', id: piece.id, name: piece.name, input: {} });
    case 'tool-call-arguments':
      return blocks.delta({ type: 'input_json_delta', partial_json: piece.fragment });
    case 'tool-call-end':
      return blocks.leave();
    case 'token':
      return '';
  }
}
