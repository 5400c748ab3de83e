/** `POST /v1/responses`: what Codex and newer clients of OpenAI speak. */
import type { GenerationResult } from '../../../engine/result.ts';
import type { Dialect, RunningGeneration, StreamFormat, StreamWriter } from '../../context.ts';
import { post } from '../../routes.ts';
import { SSE_PING, sseEvent } from '../../stream.ts';
import { openaiError } from './failure.ts';
import { inputTokens } from './input-tokens.ts';
import { newId, outputOf, ResponsesOutput } from './responses-output.ts';
import { responsesMessages, responsesOptions } from './responses-request.ts';
import { type ResponsesBody, responsesBody } from './responses-schema.ts';

const STREAM: StreamFormat = {
  contentType: 'text/event-stream',
  heartbeat: () => SSE_PING,
  failure: (error) => sseEvent({ type: 'error', ...openaiError(error).error }, 'error'),
};

export const openaiResponses: Dialect = {
  name: 'openai-responses',
  owns: (path) => /^\/(v1\/)?responses(\/|$)/.test(path),
  errorBody: openaiError,
  mount(app, server) {
    post(app, server, openaiResponses, {
      paths: ['/v1/responses', '/responses'],
      tag: 'OpenAI',
      summary: 'Answer a conversation, as items',
      body: responsesBody,
      async handle(request, body) {
        const messages = responsesMessages(body);
        const options = responsesOptions(body, server.options);
        return server.answer(request, openaiResponses, {
          model: body.model ?? '',
          start: (engine, signal) => engine.chat(messages, { ...options, signal }),
          streamed: body.stream === true,
          format: STREAM,
          whole: (running, result) => ({ ...head(running, body), ...ending(result), output: outputOf(result) }),
          write: (out, running) => writeEvents(out, running, body),
        });
      },
    });
    const read = (body: ResponsesBody) => ({
      messages: responsesMessages(body),
      options: responsesOptions(body, server.options),
    });
    inputTokens(app, server, openaiResponses, { path: '/responses', body: responsesBody, read });
  },
};

function head({ model }: RunningGeneration, body: ResponsesBody) {
  return {
    id: newId('resp'),
    object: 'response',
    created_at: Math.floor(Date.now() / 1000),
    status: 'in_progress',
    background: false,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    metadata: body.metadata ?? {},
    model: model.id,
    output: [] as unknown[],
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    store: false,
    temperature: body.temperature ?? null,
    text: body.text ?? { format: { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: body.tools ?? [],
    top_p: body.top_p ?? null,
    truncation: 'disabled',
    usage: null as unknown,
  };
}

function ending({ finishReason, usage }: GenerationResult) {
  const cut = finishReason === 'length';
  return {
    status: cut ? 'incomplete' : 'completed',
    incomplete_details: cut ? { reason: 'max_output_tokens' } : null,
    usage: {
      input_tokens: usage.promptTokens,
      input_tokens_details: { cached_tokens: usage.cachedTokens },
      output_tokens: usage.completionTokens,
      output_tokens_details: { reasoning_tokens: usage.reasoningTokens },
      total_tokens: usage.totalTokens,
    },
  };
}

async function writeEvents(out: StreamWriter, running: RunningGeneration, body: ResponsesBody): Promise<void> {
  const shared = head(running, body);
  const output = new ResponsesOutput();
  await out.write(
    output.event('response.created', { response: shared }) + output.event('response.in_progress', { response: shared }),
  );
  for await (const piece of running.generation) {
    if (piece.type === 'done') {
      const closed = output.close();
      const end = ending(piece.result);
      const response = { ...shared, ...end, output: output.items };
      await out.write(closed + output.event(`response.${end.status}`, { response }));
    } else if (piece.type !== 'prefill' && piece.type !== 'token') await out.write(output.take(piece));
  }
}
