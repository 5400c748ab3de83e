/**
 * A server that runs somewhere as the model of a command: nobody loads 377 GB twice. It speaks the server's OpenAI dialect and
 * gives the same generations as an engine in this process.
 */
import type { ChatOptions, GenerateOptions } from '../engine/generate-options.ts';
import { Generation, type GenerationSink } from '../engine/generation.ts';
import type { GenerationResult } from '../engine/result.ts';
import { isAbort, TandemError } from '../errors.ts';
import type { ChatMessage } from '../text/messages.ts';

/** What a command needs of a model, loaded here or elsewhere. */
export interface Answerer extends AsyncDisposable {
  readonly name: string;
  chat(messages: readonly ChatMessage[], options: ChatOptions): Generation;
  generate(prompt: string, options: GenerateOptions): Generation;
}

export interface RemoteModel {
  /** `http://127.0.0.1:11435` */
  readonly url: string;
  readonly model: string;
  readonly key?: string;
}

export interface Wanted {
  readonly key?: string;
  /** The model as a user names it: a name of the server, or a file that is here too. Absent: the server's first. */
  readonly model?: string;
  /** That file's digest. */
  readonly digest?: () => Promise<string | undefined>;
  readonly timeoutMs?: number;
}

/** A model of a server. Errors as TandemErrors that name the address. */
export async function connect(
  url: string,
  { key, model, digest, timeoutMs = 10_000 }: Wanted = {},
): Promise<RemoteModel> {
  const base = (/^\w+:\/\//.test(url) ? url : `http://${url}`).replace(/\/+$/, '').replace(/\/v1$/, '');
  if (!URL.canParse(base) || !/^https?:$/.test(new URL(base).protocol))
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: '--server takes the address of a server',
      given: url,
      fix: 'write it like http://127.0.0.1:11435',
    });
  const reply = await ask(`${base}/v1/models`, { headers: authorization(key), signal: AbortSignal.timeout(timeoutMs) });
  const { data = [] } = (await reply.json()) as { data?: { id: string }[] };
  if (data.length === 0) throw unreachable(base, 'it lists no model');
  const names = data.map(({ id }) => id);
  if (model === undefined || names.includes(model)) return { url: base, model: model ?? names[0], key };
  const wanted = await digest?.();
  const same =
    wanted === undefined ? undefined : (await tags(base, key, timeoutMs)).find((one) => one.digest === wanted);
  if (same !== undefined) return { url: base, model: ownName(same.name), key };
  throw new TandemError('MODEL_UNKNOWN', {
    room: 'cli',
    rule: `the server at ${base} has ${names.join(', ')}`,
    given: `--model ${model}`,
    fix: 'name one of these, or leave --model out',
  });
}

interface Tag {
  readonly name: string;
  readonly digest: string;
}

/** Models with their digests, as Ollama's clients ask for them. */
async function tags(base: string, key: string | undefined, timeoutMs: number): Promise<readonly Tag[]> {
  const signal = AbortSignal.timeout(timeoutMs);
  const reply = await ask(`${base}/api/tags`, { headers: authorization(key), signal });
  return ((await reply.json()) as { models: readonly Tag[] }).models;
}

/** Ollama's clients write every model's name with a tag. */
function ownName(tagged: string): string {
  return tagged.replace(/:latest$/, '');
}

/**
 * The server on this machine's default port, where it has the model with this digest; undefined where not, `locked` where it
 * does not tell without a key.
 */
export async function findServer(
  port: number,
  digest: string,
  key?: string,
): Promise<RemoteModel | 'locked' | undefined> {
  const url = `http://127.0.0.1:${port}`;
  try {
    const found = (await tags(url, key, 1000)).find((model) => model.digest === digest);
    return found && { url, model: ownName(found.name), key };
  } catch (error) {
    return error instanceof TandemError && error.code === 'ACCESS_DENIED' ? 'locked' : undefined;
  }
}

export class RemoteAnswerer implements Answerer {
  readonly name: string;
  readonly #remote: RemoteModel;

  constructor(remote: RemoteModel) {
    this.#remote = remote;
    this.name = `${remote.model} at ${remote.url}`;
  }

  chat(messages: readonly ChatMessage[], options: ChatOptions): Generation {
    const body = {
      messages: messages.map(({ role, content, reasoning }) => ({ role, content, reasoning_content: reasoning })),
      enable_thinking: options.thinking,
    };
    return this.#stream('/v1/chat/completions', body, options);
  }

  generate(prompt: string, options: GenerateOptions): Generation {
    return this.#stream('/v1/completions', { prompt }, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #stream(path: string, body: object, options: GenerateOptions): Generation {
    return new Generation((sink) => {
      const stop = new AbortController();
      const signal = options.signal ? AbortSignal.any([stop.signal, options.signal]) : stop.signal;
      const request = {
        model: this.#remote.model,
        stream: true,
        stream_options: { include_usage: true },
        return_progress: true,
        ...body,
        ...wireOptions(options),
      };
      void this.#read(path, request, signal, new Reader(sink, options));
      return () => stop.abort();
    });
  }

  async #read(path: string, request: object, signal: AbortSignal, reader: Reader): Promise<void> {
    const { url, key } = this.#remote;
    try {
      const reply = await ask(`${url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...authorization(key) },
        body: JSON.stringify(request),
        signal,
      });
      for await (const data of events(reply)) reader.take(JSON.parse(data) as Chunk);
      if (!reader.whole) throw brokenOff(url, 'it closed the connection');
      reader.end();
    } catch (error) {
      if (signal.aborted || isAbort(error)) reader.fail(aborted(signal));
      else reader.fail(error instanceof TandemError ? error : brokenOff(url, causeOf(error)));
    }
  }
}

function wireOptions(options: GenerateOptions): object {
  return {
    max_tokens: options.maxTokens,
    temperature: options.temperature,
    top_k: options.topK,
    top_p: options.topP,
    min_p: options.minP,
    repetition_penalty: options.repetitionPenalty,
    presence_penalty: options.presencePenalty,
    frequency_penalty: options.frequencyPenalty,
    seed: options.seed === undefined ? undefined : Number(options.seed),
    stop: options.stop,
  };
}

interface Chunk {
  readonly error?: { readonly message?: string };
  readonly choices?: readonly {
    readonly text?: string;
    readonly delta?: {
      readonly content?: string | null;
      readonly reasoning_content?: string;
      readonly tool_calls?: readonly {
        readonly index: number;
        readonly id?: string;
        readonly function?: { readonly name?: string; readonly arguments?: string };
      }[];
    };
    readonly finish_reason?: string | null;
  }[];
  readonly prompt_progress?: { readonly total: number; readonly cache: number; readonly processed: number };
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number };
    readonly completion_tokens_details?: { readonly reasoning_tokens?: number };
  };
  readonly timings?: Readonly<Record<string, number>>;
}

/** Chunks of a stream as the events and the result of a generation. */
class Reader {
  readonly #sink: GenerationSink;
  readonly #options: GenerateOptions;
  readonly #calledAt = performance.now();
  readonly #calls: { id: string; name: string; arguments: string }[] = [];
  #firstAt = Number.NaN;
  #text = '';
  #reasoning = '';
  #finish: GenerationResult['finishReason'] | undefined;
  #usage: Chunk['usage'];
  #timings: Chunk['timings'];

  constructor(sink: GenerationSink, options: GenerateOptions) {
    this.#sink = sink;
    this.#options = options;
  }

  take({ error, choices = [], prompt_progress: progress, usage, timings }: Chunk): void {
    if (error)
      throw new TandemError('NATIVE_FAILED', {
        room: 'cli',
        rule: 'the server answers',
        given: error.message ?? 'it failed without a word',
      });
    if (progress)
      this.#sink.emit({ type: 'prefill', done: progress.processed, total: progress.total, cached: progress.cache });
    if (usage) this.#usage = usage;
    if (timings) this.#timings = timings;
    for (const { text, delta, finish_reason: finish } of choices) {
      if (finish) this.#finish = finish === 'length' ? 'length' : 'stop';
      this.#say('text', text ?? delta?.content ?? '');
      this.#say('reasoning', delta?.reasoning_content ?? '');
      for (const call of delta?.tool_calls ?? []) this.#call(call.index, call.id, call.function);
    }
  }

  /** The server said how it ended. */
  get whole(): boolean {
    return this.#finish !== undefined;
  }

  end(): void {
    for (const index of this.#calls.keys()) this.#sink.emit({ type: 'tool-call-end', index });
    this.#sink.finish(this.#result(this.#finish ?? 'stop'));
  }

  fail(error: unknown): void {
    this.#sink.fail(error, Number.isNaN(this.#firstAt) ? undefined : this.#result('abort'));
  }

  #say(type: 'text' | 'reasoning', text: string): void {
    if (text === '') return;
    if (Number.isNaN(this.#firstAt)) this.#firstAt = performance.now();
    if (type === 'text') this.#text += text;
    else this.#reasoning += text;
    this.#sink.emit({ type, text });
  }

  #call(index: number, id?: string, call?: { readonly name?: string; readonly arguments?: string }): void {
    if (id !== undefined && call?.name !== undefined) {
      this.#calls[index] = { id, name: call.name, arguments: '' };
      this.#sink.emit({ type: 'tool-call-start', index, id, name: call.name });
    }
    const fragment = call?.arguments ?? '';
    if (fragment === '' || this.#calls[index] === undefined) return;
    this.#calls[index].arguments += fragment;
    this.#sink.emit({ type: 'tool-call-arguments', index, fragment });
  }

  #result(finishReason: GenerationResult['finishReason']): GenerationResult {
    const now = performance.now();
    const firstAt = Number.isNaN(this.#firstAt) ? now : this.#firstAt;
    const { prompt_tokens: promptTokens = 0, completion_tokens: completionTokens = 0 } = this.#usage ?? {};
    const timings = this.#timings ?? {};
    return {
      text: this.#text,
      reasoning: this.#reasoning,
      toolCalls: this.#calls,
      tokens: [],
      finishReason,
      usage: {
        promptTokens,
        cachedTokens: this.#usage?.prompt_tokens_details?.cached_tokens ?? 0,
        completionTokens,
        reasoningTokens: this.#usage?.completion_tokens_details?.reasoning_tokens ?? 0,
        totalTokens: promptTokens + completionTokens,
      },
      timings: {
        queueMs: timings.queue_ms ?? 0,
        promptMs: timings.prompt_ms ?? 0,
        promptTokensPerSecond: timings.prompt_per_second ?? 0,
        generationMs: timings.predicted_ms ?? now - firstAt,
        tokensPerSecond: timings.predicted_per_second ?? 0,
        timeToFirstTokenMs: firstAt - this.#calledAt,
        totalMs: now - this.#calledAt,
      },
      temperature: timings.temperature ?? this.#options.temperature ?? 0,
      seed: timings.seed ?? this.#options.seed ?? 0,
    };
  }
}

/** `data:` of server-sent events, until `[DONE]`. */
async function* events(reply: Response): AsyncGenerator<string> {
  let pending = '';
  const decoder = new TextDecoder();
  for await (const bytes of reply.body as unknown as AsyncIterable<Uint8Array>) {
    pending += decoder.decode(bytes, { stream: true });
    for (let end = pending.indexOf('\n\n'); end >= 0; end = pending.indexOf('\n\n')) {
      const event = pending.slice(0, end);
      pending = pending.slice(end + 2);
      const data = event
        .split('\n')
        .filter((line) => line.startsWith('data:'))
        .map((line) => line.slice(5).trimStart())
        .join('\n');
      if (data === '[DONE]') return;
      if (data !== '') yield data;
    }
  }
}

async function ask(url: string, init: RequestInit): Promise<Response> {
  let reply: Response;
  try {
    reply = await fetch(url, init);
  } catch (error) {
    if (isAbort(error) && init.signal?.aborted && !(error as Error).name.startsWith('Timeout')) throw error;
    throw unreachable(new URL(url).origin, causeOf(error));
  }
  if (reply.ok) return reply;
  const body = (await reply.json().catch(() => ({}))) as { error?: { message?: string } | string };
  const message = typeof body.error === 'string' ? body.error : body.error?.message;
  const code = { 401: 'ACCESS_DENIED', 404: 'MODEL_UNKNOWN' } as const;
  throw new TandemError(code[reply.status as 401 | 404] ?? 'REQUEST_INVALID', {
    room: 'cli',
    rule: `the server at ${new URL(url).origin} takes the request`,
    given: message ?? `it answered ${reply.status}`,
    fix: reply.status === 401 ? 'give its key with --api-key or in TANDEM_API_KEY' : undefined,
  });
}

/** Why fetch gave up, in one line. */
function causeOf(error: unknown): string {
  const { message, cause } = error as { message?: string; cause?: { message?: string; code?: string } };
  if (cause?.code?.startsWith('ERR_SSL')) return 'it speaks no TLS: write http://';
  return (cause?.message ?? message ?? String(error)).split('\n')[0];
}

function brokenOff(origin: string, why: string): TandemError {
  return new TandemError('NATIVE_FAILED', {
    room: 'cli',
    rule: `the server at ${origin} brings its answer to an end`,
    given: why,
    fix: 'see whether it still runs, and ask again',
  });
}

function unreachable(origin: string, why: string): TandemError {
  return new TandemError('FILE_NOT_FOUND', {
    room: 'cli',
    rule: 'a server answers at --server',
    given: `${origin}: ${why}`,
    fix: 'start it with tandem serve, or leave --server out',
  });
}

function authorization(key: string | undefined): Record<string, string> {
  return key ? { authorization: `Bearer ${key}` } : {};
}

function aborted(signal: AbortSignal): TandemError {
  return new TandemError('ABORTED', { room: 'cli', rule: 'the request was cancelled', cause: signal.reason });
}
