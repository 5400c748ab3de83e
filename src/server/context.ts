/**
 * What a dialect is and what it is given. A dialect is one folder or file that turns its wire format into calls of the
 * engine and the events of a generation back into its wire format; it owns routes, validators and response shapes and
 * nothing else. Hosts, keys, CORS, ids, limits, logs and metrics are the server's and happen around it.
 */
import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Engine } from '../engine/engine.ts';
import type { Generation } from '../engine/generation.ts';
import type { GenerationResult } from '../engine/result.ts';
import type { TandemError } from '../errors.ts';
import type { ServerMetrics } from './metrics.ts';
import type { ModelEntry, ModelHost } from './models.ts';

export interface Dialect {
  /** `openai-chat`, `anthropic` …: names it in logs and metrics. */
  readonly name: string;
  /** Registers its routes, prefix-less ones too. */
  mount(app: ServerApp, server: ServerContext): void;
  /** The body of a failure in this dialect's form; status and headers are the server's. */
  errorBody(error: TandemError): unknown;
  /** Paths whose failures before a route runs (404, 405, bad key …) `errorBody` writes. The first dialect that owns it does. */
  owns(path: string): boolean;
}

export type ServerApp = OpenAPIHono<{ Variables: RequestVariables }>;
export type ServerRequest = Context<{ Variables: RequestVariables }>;

export interface RequestVariables {
  /** `x-request-id`: the client's where it is a sane one, else ours. */
  requestId: string;
  /** Aborts when the client goes away or the server stops for good. */
  signal: AbortSignal;
  /** Aborts `signal`: a streamed answer learns first that nobody reads it. */
  leave: () => void;
  /** What the log line of this request tells beside method, path and status. */
  facts: RequestFacts;
}

export interface RequestFacts {
  dialect?: string;
  model?: string;
  promptTokens?: number;
  cachedTokens?: number;
  completionTokens?: number;
  finish?: string;
  error?: string;
  /** What of the request was not followed, where it was answered all the same. */
  note?: string;
}

export interface ServerContext {
  readonly models: ModelHost;
  readonly options: ServerOptions;
  readonly metrics: ServerMetrics;
  readonly version: string;
  /** True once the server takes no new generations. */
  stopping(): boolean;
  /**
   * Starts a generation on the model a client named: waits for one that loads, counts it, logs it, and lets the model go
   * when it ended. `start` calls `engine.chat` or `engine.generate` with `signal`. Throws TandemErrors.
   */
  generate(request: ServerRequest, model: string, start: StartGeneration): Promise<RunningGeneration>;
  /** One generation as a dialect tells it. What is wrong with the request is a status, also of an answer that is streamed. */
  answer(request: ServerRequest, dialect: Dialect, telling: Telling): Promise<Response>;
  /** A question that takes no generation (tokens, counts), on the model a client named. */
  borrow<T>(
    request: ServerRequest,
    model: string,
    ask: (engine: Engine, signal: AbortSignal) => T | Promise<T>,
  ): Promise<T>;
  /** A response written piece by piece: flushes headers at once, keeps alive, ends with the client. */
  stream(request: ServerRequest, format: StreamFormat, write: (out: StreamWriter) => Promise<void>): Response;
}

/** How a dialect tells a generation: whole as JSON, or piece by piece. */
export interface Telling {
  readonly model: string;
  readonly start: StartGeneration;
  readonly streamed: boolean;
  readonly format: StreamFormat;
  whole(running: RunningGeneration, result: GenerationResult): unknown;
  write(out: StreamWriter, running: RunningGeneration): Promise<void>;
}

export type StartGeneration = (engine: Engine, signal: AbortSignal) => Generation;

export interface RunningGeneration {
  readonly engine: Engine;
  readonly generation: Generation;
  readonly model: ModelEntry;
  /** Milliseconds until the model was there. */
  readonly loadMs: number;
}

export interface StreamFormat {
  readonly contentType: 'text/event-stream' | 'application/x-ndjson' | 'application/json';
  /** What keeps an idle connection alive: an SSE comment, `event: ping`, an empty line of the dialect. */
  heartbeat(): string;
  /** What tells the client that it failed after the head was sent. */
  failure(error: TandemError): string;
}

export interface StreamWriter {
  /** One or more whole events or lines. Resolves when the socket takes more; rejects when the client is gone. */
  write(text: string): Promise<void>;
}

export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  /** Empty: no key is asked for. */
  readonly apiKeys: readonly string[];
  /** Origins that browsers may call from; `localhost`: any port of this machine; `*`: all. Default [`localhost`]. */
  readonly corsOrigins: readonly string[];
  /** Host names that are answered beside addresses and localhost, against DNS rebinding; `*`: all. */
  readonly allowedHosts: readonly string[];
  /** Largest request body, bytes. Default 64 MB. */
  readonly bodyBytes: number;
  /** A client that takes longer to send its head, or its whole request, is cut off. Milliseconds. */
  readonly headTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** A client that takes nothing of its answer for so long is cut off. Milliseconds. Default 60 000. */
  readonly writeTimeoutMs: number;
  /** Milliseconds between signs of life of a silent stream. Default 10 000. */
  readonly heartbeatMs: number;
  /** White space keeps answers that are not streamed alive too; their status is then always 200. Default false. */
  readonly heartbeatJson: boolean;
  /** Most tokens of an answer where the client names none. */
  readonly maxTokens?: number;
  /** Thinking apart, or left in the text as `<think>`. */
  readonly reasoningFormat: 'separate' | 'none';
  /** Requests that may wait for their turn; more get 429. */
  readonly maxQueue: number;
  /** Milliseconds that running answers get to end after SIGTERM. */
  readonly drainMs: number;
  /** Waits for a model that loads; false: 503 at once. */
  readonly waitForModel: boolean;
  readonly tls?: { readonly cert: string; readonly key: string };
}

export const DEFAULT_SERVER_OPTIONS: ServerOptions = {
  host: '127.0.0.1',
  port: 11435,
  apiKeys: [],
  corsOrigins: ['localhost'],
  allowedHosts: [],
  bodyBytes: 64 << 20,
  headTimeoutMs: 20_000,
  requestTimeoutMs: 300_000,
  writeTimeoutMs: 60_000,
  heartbeatMs: 10_000,
  heartbeatJson: false,
  reasoningFormat: 'separate',
  maxQueue: 128,
  drainMs: 30_000,
  waitForModel: true,
};
