/** Requests below the level of client libraries: bytes on a socket, JSON by fetch. */
import { connect } from 'node:net';
import type { TestServer } from './fixture.ts';

/** Bytes in, bytes out, until the server closes or `ms` passed. */
export function raw(server: TestServer, request: string | Buffer, ms = 3000): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(server.port, '127.0.0.1');
    let text = '';
    const end = () => {
      socket.destroy();
      resolve(text);
    };
    const timer = setTimeout(end, ms);
    socket.on('data', (bytes) => {
      text += bytes.toString();
    });
    socket.on('close', () => {
      clearTimeout(timer);
      end();
    });
    socket.on('error', () => {});
    socket.write(request);
  });
}

export function post(
  server: TestServer,
  path: string,
  body: unknown,
  { headers = {}, signal }: { headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Response> {
  return fetch(`${server.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
}

/** JSON of an answer, to be looked at by expectations. */
// biome-ignore lint/suspicious/noExplicitAny: bodies of many shapes
export async function json(reply: Response | Promise<Response>): Promise<any> {
  return (await reply).json();
}

/** The `data:` of server-sent events, without `[DONE]`. */
// biome-ignore lint/suspicious/noExplicitAny: bodies of many shapes
export async function chunks(reply: Response | Promise<Response>): Promise<any[]> {
  const text = await (await reply).text();
  return text
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => JSON.parse(event.slice(6)));
}
