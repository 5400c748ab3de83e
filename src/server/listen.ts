/** A listening server: sockets, TLS, limits against slow clients, and an end that lets answers finish. */
import { readFileSync } from 'node:fs';
import { createServer as createHttp, type Server } from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '@hono/node-server';
import { TandemError } from '../errors.ts';
import type { ServerHandle } from './app.ts';
import type { ServerOptions } from './context.ts';

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
/** A client that takes longer to send its head, or its whole request, is cut off. */
const HEAD_TIMEOUT_MS = 20_000;
const REQUEST_TIMEOUT_MS = 300_000;

/** REQUEST_INVALID where the port is taken or the TLS files cannot be read. */
export async function listen(handle: ServerHandle, options: ServerOptions): Promise<ListeningServer> {
  const { host, port, tls } = options;
  const limits = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEAD_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: 75_000,
    connectionsCheckingInterval: 5_000,
    noDelay: true,
  };
  const server = await new Promise<Server>((resolve, reject) => {
    const node = serve(
      {
        fetch: handle.app.fetch,
        hostname: host,
        port,
        overrideGlobalObjects: false,
        ...(tls === undefined
          ? { createServer: createHttp, serverOptions: limits }
          : {
              createServer: createHttps,
              serverOptions: { ...limits, cert: tlsFile(tls.cert), key: tlsFile(tls.key) },
            }),
      },
      () => resolve(node as Server),
    ) as Server;
    // Also later: what the system refuses one client ends no other.
    node.on('error', (error: NodeJS.ErrnoException) => reject(cannotListen(error, host, port)));
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

function tlsFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TandemError('FILE_NOT_FOUND', {
      room: 'server',
      rule: 'certificate and key of TLS are readable PEM files',
      given: (error as Error).message,
      fix: 'give --tls-cert FILE and --tls-key FILE',
    });
  }
}

function cannotListen(error: NodeJS.ErrnoException, host: string, port: number): TandemError {
  const taken = error.code === 'EADDRINUSE';
  return new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: `the server can listen on ${host}:${port}`,
    given: taken ? 'another program does already' : error.message,
    fix: taken ? 'choose another --port, or end the other program' : 'choose another --host or --port',
    cause: error,
  });
}
