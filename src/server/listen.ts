/** A listening server: sockets, TLS, limits against slow clients, and an end that lets answers finish. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { getRequestListener, RequestError } from '@hono/node-server';
import { TandemError } from '../errors.ts';
import { systemReason } from '../formats/file-source.ts';
import type { ServerHandle } from './app.ts';
import type { ServerOptions } from './context.ts';
import { openaiError } from './dialects/openai/failure.ts';
import { asTandemError, httpFailure } from './failures.ts';

export interface ListeningServer {
  /** `http://127.0.0.1:11435` */
  readonly url: string;
  readonly port: number;
  /**
   * No new connections or generations; running ones get `drainMs` to end, then they are aborted. Resolves when all
   * sockets are closed.
   */
  close(): Promise<void>;
}

/** Largest head of a request. */
const MAX_HEADER_BYTES = 32 << 10;

/** REQUEST_INVALID where host and port cannot be had, FILE_NOT_FOUND or FORMAT_INVALID where the TLS files cannot. */
export async function listen(handle: ServerHandle, options: ServerOptions): Promise<ListeningServer> {
  const { host, port, tls } = options;
  if (!Number.isInteger(port) || port < 0 || port > 65535)
    throw cannotListen(Object.assign(new Error('a port is a number up to 65535'), { code: 'ERANGE' }), host, port);
  const limits = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: options.headTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    keepAliveTimeout: 75_000,
    connectionsCheckingInterval: Math.ceil(options.headTimeoutMs / 4),
    noDelay: true,
    requireHostHeader: false, // refused here, in words
  };
  const named = getRequestListener(handle.app.fetch, {
    hostname: 'localhost', // of a request of HTTP/1.0 that names none
    overrideGlobalObjects: false,
    errorHandler: unreadable,
  });
  const answer = (request: IncomingMessage, reply: ServerResponse) =>
    request.headers.host === undefined && request.httpVersion === '1.1' ? refuseHostless(reply) : named(request, reply);
  const server = tls === undefined ? createHttp(limits, answer) : createHttps({ ...limits, ...tlsFiles(tls) }, answer);
  server.timeout = options.writeTimeoutMs;
  server.on('request', (_, reply) => reply.on('timeout', (socket) => endStalled(reply, socket)));
  await new Promise<void>((resolve, reject) => {
    // Also later: what the system refuses one client ends no other.
    server.on('error', (error: NodeJS.ErrnoException) => reject(cannotListen(error, host, port)));
    server.listen(port, host, resolve);
  });
  const { port: bound } = server.address() as AddressInfo;
  const shown = host.includes(':') ? `[${host}]` : host;
  return {
    url: `${tls === undefined ? 'http' : 'https'}://${shown}:${bound}`,
    port: bound,
    async close() {
      handle.stop();
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeIdleConnections();
      const deadline = performance.now() + options.drainMs;
      while (handle.running() > 0 && performance.now() < deadline) await sleep(50);
      handle.abort();
      // Last bytes on their way out.
      for (let i = 0; i < 20 && handle.running() > 0; i++) await sleep(50);
      await Promise.race([closed, sleep(500)]);
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Nothing moved on the connection for a while: no fault where the answer is still thought about, the end where nobody reads it. */
function endStalled(reply: ServerResponse, socket: Socket): void {
  if (reply.writableNeedDrain || socket.writableLength > 0) socket.destroy();
}

/** HTTP/1.1 wants a Host header (RFC 9112, 3.2). */
function refuseHostless(reply: ServerResponse): void {
  const body = JSON.stringify(openaiError(noPathOfHost('HTTP/1.1 without a Host header')));
  reply
    .writeHead(400, { 'content-type': 'application/json', 'x-should-retry': 'false', connection: 'close' })
    .end(body);
}

function noPathOfHost(given: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: 'a request names a path of a host',
    given,
    fix: 'check its first line and its Host header',
  });
}

/** A request whose target or Host makes no address: no dialect is known. */
function unreadable(error: unknown): Response {
  const told = error instanceof RequestError ? noPathOfHost(error.message) : asTandemError(error);
  return Response.json(openaiError(told), { status: httpFailure(told).status, headers: { 'x-should-retry': 'false' } });
}

/** Read and checked before anything listens: certificate and key have to be of each other. */
function tlsFiles({ cert: certPath, key: keyPath }: { readonly cert: string; readonly key: string }) {
  const cert = tlsFile(certPath, 'certificate', (text) => new X509Certificate(text));
  const key = tlsFile(keyPath, 'private key without a passphrase', (text) => createPrivateKey(text));
  if (!cert.value.checkPrivateKey(key.value))
    throw wrongTls(`the key in ${keyPath} is not the one of the certificate in ${certPath}`);
  return { cert: cert.text, key: key.text };
}

function tlsFile<T>(path: string, what: string, parse: (text: Buffer) => T): { text: Buffer; value: T } {
  let text: Buffer;
  try {
    text = readFileSync(path);
  } catch (error) {
    throw wrongTls(`${path}: ${systemReason(error)}`, 'FILE_NOT_FOUND');
  }
  try {
    return { text, value: parse(text) };
  } catch {
    throw wrongTls(`${path} holds no ${what}`);
  }
}

function wrongTls(given: string, code: 'FILE_NOT_FOUND' | 'FORMAT_INVALID' = 'FORMAT_INVALID'): TandemError {
  return new TandemError(code, {
    room: 'server',
    rule: 'certificate and key of TLS are PEM files that belong together',
    given,
    fix: 'give --tls-cert FILE (the server certificate first) and --tls-key FILE',
  });
}

const LISTEN_PROBLEMS: Record<string, { readonly given: string; readonly fix: string }> = {
  EADDRINUSE: { given: 'another program does already', fix: 'choose another --port (0 takes a free one), or end it' },
  EADDRNOTAVAIL: {
    given: 'this machine does not have that address',
    fix: 'choose an address of this machine as --host',
  },
  ENOTFOUND: { given: 'nobody knows that name', fix: 'choose an address of this machine as --host' },
  EAI_AGAIN: { given: 'nobody knows that name now', fix: 'choose an address of this machine as --host' },
  EACCES: { given: 'the system does not allow it', fix: 'choose a --port above 1023' },
};

function cannotListen(error: NodeJS.ErrnoException, host: string, port: number): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: `the server can listen on ${host}:${port}`,
    ...(LISTEN_PROBLEMS[error.code ?? ''] ?? { given: error.message, fix: 'choose another --host or --port' }),
    cause: error,
  });
}
