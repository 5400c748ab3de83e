/** `POST /v1/completions`: text or token ids go on; the old protocol, still asked by editors and evaluation harnesses. */
import type { Engine } from '../../../engine/engine.ts';
import type { GenerationResult } from '../../../engine/result.ts';
import { TandemError } from '../../../errors.ts';
import type { Dialect, RunningGeneration, ServerContext, ServerRequest, StreamWriter } from '../../context.ts';
import { defined } from '../../defined.ts';
import { post } from '../../routes.ts';
import { sseEvent } from '../../stream.ts';
import { OPENAI_STREAM } from './chat.ts';
import { joined, type LogprobColumns, logprobColumns, promptColumns } from './completion-logprobs.ts';
import { type CompletionBody, completionBody } from './completions-schema.ts';
import { openaiError } from './failure.ts';
import { answerLimit, samplingOptions } from './sampling.ts';
import { llamaTimings, openaiUsage } from './usage.ts';

/** OpenAI's own default. */
const ANSWER_TOKENS = 16;

export const openaiCompletions: Dialect = {
  name: 'openai-completions',
  owns: (path) => /^\/(v1\/)?completions$/.test(path),
  errorBody: openaiError,
  mount(app, server) {
    post(app, server, openaiCompletions, {
      paths: ['/v1/completions', '/completions'],
      tag: 'OpenAI',
      summary: 'Continue a text',
      body: completionBody,
      async handle(request, body) {
        const prompt = onePrompt(body);
        if (body.suffix) throw refused('text is continued at its end', 'a suffix asks to fill a gap', 'leave it out');
        const options = {
          ...samplingOptions(body),
          ...defined({
            maxTokens: answerLimit(body.max_tokens ?? server.options.maxTokens ?? ANSWER_TOKENS, server.options),
            logprobs: body.logprobs,
            priority: body.priority,
          }),
          parseSpecial: true,
        };
        const echo = body.echo === true ? await echoed(request, server, body, prompt) : NO_ECHO;
        if (body.max_tokens === 0) return promptAlone(request, server, body, prompt, echo);
        return server.answer(request, openaiCompletions, {
          model: body.model ?? '',
          start: (engine, signal) => engine.generate(prompt, { ...options, signal }),
          streamed: body.stream === true,
          format: OPENAI_STREAM,
          whole: ({ model }, result) => ({
            ...head(model.id),
            choices: [
              {
                index: 0,
                text: echo.text + result.text,
                logprobs: result.logprobs
                  ? joined(echo.logprobs, logprobColumns(result.logprobs, echo.text.length))
                  : null,
                finish_reason: finish(result),
              },
            ],
            usage: openaiUsage(result),
            timings: llamaTimings(result),
          }),
          write: (out, running) => writeChunks(out, running, echo, body.stream_options?.include_usage === true),
        });
      },
    });
  },
};

function onePrompt({ prompt }: CompletionBody): string | number[] {
  if (typeof prompt === 'string') return prompt;
  const [first] = prompt;
  if (typeof first === 'number') return prompt as number[];
  if (prompt.length === 1) return first as string | number[];
  throw refused('a request asks for one answer', `${prompt.length} prompts`, 'send one request for each');
}

function refused(rule: string, given: string, fix: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'server', rule, given, fix });
}

/** The prompt as it is repeated before the answer. */
interface Echo {
  readonly text: string;
  readonly logprobs?: LogprobColumns;
}

const NO_ECHO: Echo = { text: '' };

async function promptIds(engine: Engine, prompt: string | number[], signal: AbortSignal): Promise<number[]> {
  if (typeof prompt !== 'string') return prompt;
  const reading = { addSpecial: true, parseSpecial: true, mostTokens: engine.info.contextLength };
  return [...(await engine.tokenizeApart(prompt, reading, signal))];
}

/** With `logprobs` those of the prompt too, which takes a pass over it. */
async function echoed(
  request: ServerRequest,
  server: ServerContext,
  { model, logprobs: top }: CompletionBody,
  prompt: string | number[],
): Promise<Echo> {
  return server.borrow(request, model ?? '', async (engine, signal) => {
    const text = typeof prompt === 'string' ? prompt : engine.detokenize(prompt);
    if (top === null || top === undefined) return { text };
    const judged = await engine.promptLogprobs(await promptIds(engine, prompt, signal), { top, signal });
    return { text, logprobs: promptColumns(judged, engine) };
  });
}

/** `max_tokens: 0`: nothing is drawn; harnesses ask so for the log-probabilities of a text. */
async function promptAlone(
  request: ServerRequest,
  server: ServerContext,
  body: CompletionBody,
  prompt: string | number[],
  echo: Echo,
): Promise<Response> {
  if (body.stream) throw refused('a stream has at least one token', 'max_tokens is 0', 'send "stream": false');
  const { id, tokens } = await server.borrow(request, body.model ?? '', async (engine, signal) => ({
    id: server.models.find(body.model ?? '')?.id ?? '',
    tokens: (await promptIds(engine, prompt, signal)).length,
  }));
  return Response.json({
    ...head(id),
    choices: [{ index: 0, text: echo.text, logprobs: echo.logprobs ?? null, finish_reason: 'length' }],
    usage: { prompt_tokens: tokens, completion_tokens: 0, total_tokens: tokens },
  });
}

function finish({ finishReason }: GenerationResult): 'stop' | 'length' {
  return finishReason === 'length' ? 'length' : 'stop';
}

function head(model: string) {
  const id = `cmpl-${crypto.randomUUID().replaceAll('-', '')}`;
  return { id, object: 'text_completion', created: Math.floor(Date.now() / 1000), model };
}

async function writeChunks(
  out: StreamWriter,
  { generation, model }: RunningGeneration,
  echo: Echo,
  usage: boolean,
): Promise<void> {
  const shared = head(model.id);
  const chunk = (text: string, more: object = {}) =>
    sseEvent({ ...shared, choices: [{ index: 0, text, logprobs: null, finish_reason: null, ...more }] });
  if (echo.text !== '') await out.write(chunk(echo.text, echo.logprobs ? { logprobs: echo.logprobs } : {}));
  let offset = echo.text.length;
  for await (const event of generation) {
    if (event.type === 'text') await out.write(chunk(event.text));
    else if (event.type === 'token') {
      await out.write(chunk('', { logprobs: logprobColumns([event], offset) }));
      offset += event.text.length;
    } else if (event.type === 'done') {
      const { result } = event;
      const tail = usage
        ? sseEvent({ ...shared, choices: [], usage: openaiUsage(result), timings: llamaTimings(result) })
        : '';
      await out.write(`${chunk('', { finish_reason: finish(result) })}${tail}data: [DONE]\n\n`);
    }
  }
}
