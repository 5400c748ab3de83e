/**
 * The application: what every request passes (id, host, CORS, key, log, metrics) around the routes of the dialects.
 * Pure over `fetch`: a test needs no socket.
 */
import { OpenAPIHono } from '@hono/zod-openapi';
import type { Engine } from '../engine/engine.ts';
import { TandemError } from '../errors.ts';
import { allowedOrigin, checkHost, checkKey, checkSite } from './access.ts';
import type {
  Dialect,
  RequestVariables,
  RunningGeneration,
  ServerApp,
  ServerContext,
  ServerOptions,
  ServerRequest,
  StartGeneration,
  StreamFormat,
} from './context.ts';
import { asTandemError, httpFailure, retryHeaders } from './failures.ts';
import type { ServerLogger } from './log.ts';
import { ServerMetrics } from './metrics.ts';
import type { Lease, ModelHost } from './models.ts';
import { methodsOf, nothingThere } from './nothing-there.ts';
import { streamResponse } from './stream.ts';

export interface AppParts {
  readonly models: ModelHost;
  readonly dialects: readonly Dialect[];
  readonly options: ServerOptions;
  readonly logger: ServerLogger;
  readonly version: string;
}

export interface ServerHandle {
  readonly app: ServerApp;
  readonly metrics: ServerMetrics;
  /** Generations that run or wait. */
  running(): number;
  /** No new generations from here on. */
  stop(): void;
  /** Ends those that still run. */
  abort(): void;
}

/** Paths that need no key: probes of balancers and of clients that look who is there. */
const OPEN_PATHS = new Set([
  '/',
  '/health',
  '/v1/health',
  '/livez',
  '/readyz',
  '/favicon.ico',
  '/api/version',
  '/docs',
  '/openapi.json',
]);

export function buildApp({ models, dialects, options, logger, version }: AppParts): ServerHandle {
  const app: ServerApp = new OpenAPIHono<{ Variables: RequestVariables }>({ strict: false });
  const metrics = new ServerMetrics(models);
  const end = new AbortController();
  let stopping = false;
  let running = 0;

  const dialectOf = (path: string): Dialect => dialects.find((dialect) => dialect.owns(path)) ?? dialects[0];

  /** The answer to a request that failed before its own answer began. */
  const refuse = (request: ServerRequest, thrown: unknown, dialect = dialectOf(request.req.path)): Response => {
    const error = endedBy(end.signal, asTandemError(thrown));
    const failure = httpFailure(error);
    request.get('facts').error = error.code;
    if (failure.status === 500)
      logger.error({ request: request.get('requestId'), error: causeOf(thrown) }, 'a request failed');
    return Response.json(dialect.errorBody(error), { status: failure.status, headers: retryHeaders(failure) });
  };

  app.use(async (request, next) => {
    const started = performance.now();
    const id = sane(request.req.header('x-request-id')) ?? `req_${crypto.randomUUID().replaceAll('-', '')}`;
    const facts: RequestVariables['facts'] = {};
    request.set('requestId', id);
    request.set('facts', facts);
    const gone = new AbortController();
    request.set('leave', () =>
      gone.abort(new TandemError('ABORTED', { room: 'server', rule: 'the client went away' })),
    );
    request.set('signal', AbortSignal.any([request.req.raw.signal, end.signal, gone.signal]));
    const origin = allowedOrigin(request.req.header('origin'), options.corsOrigins);
    try {
      checkHost(request.req.header('host'), options);
      if (request.req.method === 'OPTIONS') request.res = new Response(null, { status: 204 });
      else {
        if (request.req.method === 'POST' || request.req.method === 'DELETE')
          checkSite((name) => request.req.header(name), options.corsOrigins);
        if (!OPEN_PATHS.has(request.req.path)) checkKey((name) => request.req.header(name), options.apiKeys);
        await next();
      }
    } catch (error) {
      request.res = refuse(request, error);
    }
    const headers = request.res.headers;
    headers.set('x-request-id', id);
    if (origin !== undefined) {
      headers.set('access-control-allow-origin', origin);
      headers.set('access-control-expose-headers', 'x-request-id, retry-after');
      headers.append('vary', 'Origin');
      if (request.req.method === 'OPTIONS') {
        const asked = request.req.header('access-control-request-headers');
        headers.set('access-control-allow-methods', 'GET, POST, DELETE, OPTIONS, HEAD');
        headers.set('access-control-allow-headers', asked ?? '*, Authorization, Content-Type');
        headers.set('access-control-max-age', '7200');
        // A page on the public web that reaches into a private network has to ask for that too.
        if (request.req.header('access-control-request-private-network'))
          headers.set('access-control-allow-private-network', 'true');
      }
    }
    const { method, path } = request.req;
    const status = request.res.status;
    const finish = () => {
      const ms = Math.round(performance.now() - started);
      metrics.answered(facts.dialect ?? 'other', status, ms);
      logger[status === 500 ? 'error' : 'info']({ request: id, method, path, status, ms, ...facts }, 'answered');
    };
    if (method === 'HEAD') {
      // The router drops the body unread.
      await request.res.body?.cancel();
      finish();
    } else request.res = whenSent(request.res, finish);
  });

  app.notFound((request) => {
    const allowed = methodsOf(app, request.req.path);
    const response = refuse(request, nothingThere(request, allowed));
    if (allowed.length > 0) response.headers.set('allow', allowed.join(', '));
    return response;
  });
  app.onError((error, request) => refuse(request as ServerRequest, error));

  const server: ServerContext = {
    models,
    options,
    metrics,
    version,
    stopping: () => stopping,

    async generate(request, name, start): Promise<RunningGeneration> {
      if (stopping)
        throw new TandemError('SERVER_STOPPING', {
          room: 'server',
          rule: 'a server that is shutting down takes no new requests',
          fix: 'try again once it is back, or ask another one',
        });
      const entry = models.find(name);
      if (entry === undefined) throw models.unknown(name);
      const facts = request.get('facts');
      facts.model = entry.id;
      const called = performance.now();
      const lease = await models.acquire(name, { signal: request.get('signal'), wait: options.waitForModel });
      try {
        checkQueue(lease.engine);
        return begin(request, lease, start, performance.now() - called);
      } catch (error) {
        lease.release();
        throw error;
      }
    },

    async answer(request, dialect, { model, start, streamed, format, whole, write }) {
      const begun = server.generate(request, model, start);
      if (!streamed) {
        const make = async () => {
          const running = await begun;
          return JSON.stringify(whole(running, await running.generation));
        };
        if (!options.heartbeatJson)
          return new Response(await make(), { headers: { 'content-type': 'application/json' } });
        begun.catch(() => {}); // told by the stream
        return server.stream(request, jsonStream(dialect), async (out) => out.write(await make()));
      }
      const ready = begun.then(async (running) => {
        await running.generation.ready;
        return running;
      });
      // A model that loads, or a form that compiles, for long: the client sees signs of life meanwhile.
      await settledWithin(ready, options.heartbeatMs);
      return server.stream(request, format, async (out) => write(out, await ready));
    },

    async borrow(request, name, ask) {
      const signal = request.get('signal');
      const { engine, release } = await models.acquire(name, { signal, wait: options.waitForModel });
      try {
        return await ask(engine, signal);
      } finally {
        release();
      }
    },

    stream(request, format, write) {
      return streamResponse(
        {
          format,
          heartbeatMs: options.heartbeatMs,
          signal: request.get('signal'),
          onFailure: (thrown) => {
            const error = endedBy(end.signal, asTandemError(thrown));
            request.get('facts').error = error.code;
            if (httpFailure(error).status === 500)
              logger.error({ request: request.get('requestId'), error: causeOf(thrown) }, 'a stream failed');
            return error;
          },
        },
        write,
        request.get('leave'),
      );
    },
  };

  function checkQueue(engine: Engine): void {
    const { waiting } = engine.stats();
    if (waiting >= options.maxQueue)
      throw new TandemError('QUEUE_FULL', {
        room: 'server',
        rule: `at most ${options.maxQueue} requests wait for their turn`,
        given: `${waiting} do`,
        fix: 'try again in a moment, or start the server with a larger --max-queue',
      });
  }

  /** Counts a generation from its start to its end, whatever ends it. */
  function begin(request: ServerRequest, lease: Lease, start: StartGeneration, loadMs: number): RunningGeneration {
    const facts = request.get('facts');
    const generation = start(lease.engine, request.get('signal'));
    running++;
    generation
      .then(
        (result) => {
          facts.promptTokens = result.usage.promptTokens;
          facts.cachedTokens = result.usage.cachedTokens;
          facts.completionTokens = result.usage.completionTokens;
          facts.finish = result.finishReason;
          metrics.generated(lease.model.id, result);
        },
        (error: unknown) => {
          facts.finish = asTandemError(error).code;
          const { partial } = generation;
          if (partial) metrics.generated(lease.model.id, partial);
        },
      )
      .finally(() => {
        running--;
        lease.release();
      });
    return { engine: lease.engine, generation, model: lease.model, loadMs };
  }

  for (const dialect of dialects) dialect.mount(app, server);
  return {
    app,
    metrics,
    running: () => running,
    stop: () => {
      stopping = true;
    },
    abort: () =>
      end.abort(new TandemError('SERVER_STOPPING', { room: 'server', rule: 'the server ended before the answer did' })),
  };
}

/** What was cancelled because the server ends is told so: another try, or another server, may answer it. */
function endedBy({ aborted, reason }: AbortSignal, error: TandemError): TandemError {
  return aborted && error.code === 'ABORTED' ? (reason as TandemError) : error;
}

/** A client's own id, where it is short and plain enough to be logged and sent back. */
function sane(id: string | undefined): string | undefined {
  return id !== undefined && /^[\w.:/+=-]{1,128}$/.test(id) ? id : undefined;
}

/** White space, then one JSON value: an answer that is not streamed, kept alive. */
function jsonStream(dialect: Dialect): StreamFormat {
  return {
    contentType: 'application/json',
    heartbeat: () => ' ',
    failure: (error) => JSON.stringify(dialect.errorBody(error)),
  };
}

/** Rejects where the promise does within `ms`; resolves when it resolves, or then. */
async function settledWithin(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  try {
    await Promise.race([promise, patience]);
  } finally {
    clearTimeout(timer);
  }
}

/** What the log says of a fault: stacks belong there and nowhere else. */
function causeOf(thrown: unknown): string {
  const cause = thrown instanceof TandemError ? (thrown.cause ?? thrown) : thrown;
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}

/** The same response; `done` is called once its body was sent, or given up. */
function whenSent(response: Response, done: () => void): Response {
  const { body } = response;
  if (body === null) {
    done();
    return response;
  }
  const reader = body.getReader();
  let told = false;
  const tell = () => {
    if (!told) done();
    told = true;
  };
  const watched = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done: last, value } = await reader.read();
        if (last) {
          tell();
          controller.close();
        } else controller.enqueue(value);
      },
      cancel(reason) {
        // What the end of it does to the request is told too.
        return reader.cancel(reason).finally(tell);
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(watched, response);
}
