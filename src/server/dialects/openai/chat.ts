/** `POST /v1/chat/completions`. */
import type { GenerationEvent, GenerationResult } from '../../../engine/result.ts';
import { BACKGROUND_PRIORITY, isBackgroundTask } from '../../background.ts';
import type { Dialect, RunningGeneration, StreamFormat, StreamWriter } from '../../context.ts';
import { post } from '../../routes.ts';
import { SSE_PING, sseEvent } from '../../stream.ts';
import { chatJob } from './chat-request.ts';
import { type ChatBody, chatBody } from './chat-schema.ts';
import { openaiError } from './failure.ts';
import { inputTokens } from './input-tokens.ts';
import { callArguments, finishReason, llamaTimings, openaiLogprob, openaiUsage } from './usage.ts';

export const OPENAI_STREAM: StreamFormat = {
  contentType: 'text/event-stream',
  heartbeat: () => SSE_PING,
  failure: (error) => sseEvent(openaiError(error)),
};

export const openaiChat: Dialect = {
  name: 'openai-chat',
  owns: (path) => /^\/(v1|chat)\//.test(path),
  errorBody: openaiError,
  mount(app, server) {
    post(app, server, openaiChat, {
      paths: ['/v1/chat/completions', '/chat/completions'],
      tag: 'OpenAI',
      summary: 'Answer a conversation',
      body: chatBody,
      async handle(request, body) {
        const { messages, options } = chatJob(body, server.options);
        options.priority ??= isBackgroundTask(messages) ? BACKGROUND_PRIORITY : undefined;
        return server.answer(request, openaiChat, {
          model: body.model ?? '',
          start: (engine, signal) => engine.chat(messages, { ...options, signal }),
          streamed: body.stream === true,
          format: OPENAI_STREAM,
          whole: completion,
          write: (out, running) => writeChunks(out, running, body),
        });
      },
    });
    const read = (body: ChatBody) => chatJob(body, server.options);
    inputTokens(app, server, openaiChat, { path: '/chat/completions', body: chatBody, read });
  },
};

function completion({ model }: RunningGeneration, result: GenerationResult) {
  const calls = result.toolCalls.map(({ id, name, arguments: json }) => ({
    id,
    type: 'function',
    function: { name, arguments: callArguments(json) },
  }));
  return {
    ...head('chat.completion', model.id),
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: calls.length > 0 && result.text === '' ? null : result.text,
          ...(result.reasoning === '' ? {} : { reasoning_content: result.reasoning }),
          ...(calls.length > 0 ? { tool_calls: calls } : {}),
        },
        finish_reason: finishReason(result),
        logprobs: result.logprobs ? { content: result.logprobs.map(openaiLogprob) } : null,
      },
    ],
    usage: openaiUsage(result),
    timings: llamaTimings(result),
  };
}

function head(object: string, model: string) {
  const id = `chatcmpl-${crypto.randomUUID().replaceAll('-', '')}`;
  return { id, object, created: Math.floor(Date.now() / 1000), model, system_fingerprint: 'tandem' };
}

async function writeChunks(out: StreamWriter, { generation, model }: RunningGeneration, body: ChatBody): Promise<void> {
  const shared = head('chat.completion.chunk', model.id);
  const chunk = (delta: object, more: object = {}) =>
    sseEvent({ ...shared, choices: [{ index: 0, delta, finish_reason: null, logprobs: null, ...more }] });
  await out.write(chunk({ role: 'assistant', content: '' }));
  const began = performance.now();
  const fragments = new Set<number>();
  for await (const event of generation) {
    if (event.type === 'done') {
      const { result } = event;
      const usage = body.stream_options?.include_usage === true;
      const last = {
        ...shared,
        choices: [{ index: 0, delta: {}, finish_reason: finishReason(result), logprobs: null }],
        timings: llamaTimings(result),
      };
      const tail = usage
        ? sseEvent({ ...shared, choices: [], usage: openaiUsage(result), timings: llamaTimings(result) })
        : '';
      await out.write(`${sseEvent(last)}${tail}data: [DONE]\n\n`);
    } else if (event.type === 'prefill') {
      if (body.return_progress === true)
        await out.write(
          sseEvent({
            ...shared,
            choices: [],
            prompt_progress: {
              total: event.total,
              cache: event.cached,
              processed: event.done,
              time_ms: Math.round(performance.now() - began),
            },
          }),
        );
    } else if (event.type === 'token') await out.write(chunk({}, { logprobs: { content: [openaiLogprob(event)] } }));
    else {
      if (event.type === 'tool-call-arguments') fragments.add(event.index);
      const delta = deltaOf(event, fragments);
      if (delta !== undefined) await out.write(chunk(delta));
    }
  }
}

/** Name and id of a call once, in its first delta; then fragments; arguments that never came are `{}`. */
function deltaOf(
  event: Exclude<GenerationEvent, { type: 'done' | 'prefill' | 'token' }>,
  fragments: ReadonlySet<number>,
): object | undefined {
  switch (event.type) {
    case 'text':
      return { content: event.text };
    case 'reasoning':
      return { reasoning_content: event.text };
    case 'tool-call-start':
      return {
        tool_calls: [
          { index: event.index, id: event.id, type: 'function', function: { name: event.name, arguments: '' } },
        ],
      };
    case 'tool-call-arguments':
      return { tool_calls: [{ index: event.index, function: { arguments: event.fragment } }] };
    case 'tool-call-end':
      return fragments.has(event.index)
        ? undefined
        : { tool_calls: [{ index: event.index, function: { arguments: '{}' } }] };
  }
}
