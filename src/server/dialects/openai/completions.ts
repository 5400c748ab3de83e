/** `POST /v1/completions`: text or token ids go on; the old protocol, still asked by editors and evaluation harnesses. */
import { z } from '@hono/zod-openapi';
import type { GenerationResult, TokenLogprob } from '../../../engine/result.ts';
import { TandemError } from '../../../errors.ts';
import type { Dialect, RunningGeneration, StreamWriter } from '../../context.ts';
import { defined } from '../../defined.ts';
import { post } from '../../routes.ts';
import { sseEvent } from '../../stream.ts';
import { OPENAI_STREAM } from './chat.ts';
import { samplingFields } from './chat-schema.ts';
import { openaiError } from './failure.ts';
import { samplingOptions } from './sampling.ts';
import { llamaTimings, openaiUsage } from './usage.ts';

const completionBody = z.looseObject({
  model: z.string().nullish(),
  prompt: z.union([
    z.string(),
    z.array(z.string()).min(1),
    z.array(z.number().int().min(0)).min(1),
    z.array(z.array(z.number().int().min(0))),
  ]),
  ...samplingFields,
  max_tokens: z.number().int().min(0).nullish(),
  echo: z.boolean().nullish(),
  suffix: z.string().nullish(),
  logprobs: z.number().int().min(0).max(20).nullish(),
  best_of: z.number().int().min(1).max(1).nullish(),
});

type CompletionBody = z.output<typeof completionBody>;

export const openaiCompletions: Dialect = {
  name: 'openai-completions',
  owns: (path) => /^\/(v1\/)?completions?$/.test(path),
  errorBody: openaiError,
  mount(app, server) {
    post(app, server, openaiCompletions, {
      paths: ['/v1/completions', '/completions', '/completion'],
      tag: 'OpenAI',
      summary: 'Continue a text',
      body: completionBody,
      async handle(request, body) {
        const prompt = onePrompt(body);
        if (body.suffix) throw refused('text is continued at its end', 'a suffix asks to fill a gap');
        const options = {
          ...samplingOptions(body),
          ...defined({
            // OpenAI's default is 16.
            maxTokens: body.max_tokens || server.options.maxTokens || 16,
            logprobs: body.logprobs,
            priority: body.priority,
          }),
          parseSpecial: true,
        };
        const echo = body.echo === true;
        const start = () =>
          server.generate(request, body.model ?? '', (engine, signal) =>
            engine.generate(prompt, { ...options, signal }),
          );
        const echoed = ({ engine }: RunningGeneration) =>
          !echo ? '' : typeof prompt === 'string' ? prompt : engine.detokenize(prompt);
        if (body.stream !== true)
          return server.json(request, openaiCompletions, async () => {
            const running = await start();
            const result = await running.generation;
            const text = echoed(running);
            return {
              ...head(running.model.id),
              choices: [
                {
                  index: 0,
                  text: text + result.text,
                  logprobs: logprobsOf(result.logprobs, text.length),
                  finish_reason: finish(result),
                },
              ],
              usage: openaiUsage(result),
              timings: llamaTimings(result),
            };
          });
        const running = await start();
        await running.generation.ready;
        return server.stream(request, OPENAI_STREAM, (out) =>
          writeChunks(out, running, echoed(running), body.stream_options?.include_usage === true),
        );
      },
    });
  },
};

function onePrompt({ prompt }: CompletionBody): string | number[] {
  if (typeof prompt === 'string') return prompt;
  const [first] = prompt;
  if (typeof first === 'number') return prompt as number[];
  if (prompt.length === 1) return first as string | number[];
  throw refused('a request asks for one answer', `${prompt.length} prompts`);
}

function refused(rule: string, given: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'server', rule, given, fix: 'send one request for each' });
}

function finish({ finishReason }: GenerationResult): 'stop' | 'length' {
  return finishReason === 'length' ? 'length' : 'stop';
}

function head(model: string) {
  const id = `cmpl-${crypto.randomUUID().replaceAll('-', '')}`;
  return { id, object: 'text_completion', created: Math.floor(Date.now() / 1000), model };
}

function logprobsOf(entries: readonly TokenLogprob[] | undefined, from: number) {
  if (entries === undefined) return null;
  let offset = from;
  return {
    tokens: entries.map(({ text }) => text),
    token_logprobs: entries.map(({ logprob }) => logprob),
    top_logprobs: entries.map(({ top }) => Object.fromEntries(top.map(({ text, logprob }) => [text, logprob]))),
    text_offset: entries.map(({ text }) => {
      const at = offset;
      offset += text.length;
      return at;
    }),
  };
}

async function writeChunks(
  out: StreamWriter,
  { generation, model }: RunningGeneration,
  echo: string,
  usage: boolean,
): Promise<void> {
  const shared = head(model.id);
  const chunk = (text: string, more: object = {}) =>
    sseEvent({ ...shared, choices: [{ index: 0, text, logprobs: null, finish_reason: null, ...more }] });
  if (echo !== '') await out.write(chunk(echo));
  for await (const event of generation) {
    if (event.type === 'text') await out.write(chunk(event.text));
    else if (event.type === 'token') await out.write(chunk('', { logprobs: logprobsOf([event], 0) }));
    else if (event.type === 'done') {
      const { result } = event;
      const tail = usage
        ? sseEvent({ ...shared, choices: [], usage: openaiUsage(result), timings: llamaTimings(result) })
        : '';
      await out.write(`${chunk('', { finish_reason: finish(result) })}${tail}data: [DONE]\n\n`);
    }
  }
}
