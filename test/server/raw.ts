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

/** Reads an answer until what came so far is of a form; then the rest of it can be read too. */
export async function readUntil(reply: Response, form: RegExp): Promise<{ text: string; rest: () => Promise<string> }> {
  const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const more = async () => {
    const { done, value = '' } = await reader.read();
    text += value;
    return !done;
  };
  while (!form.test(text)) if (!(await more())) throw new Error(`${form} never came: ${text}`);
  const rest = async () => {
    while (await more());
    return text;
  };
  return { text, rest };
}

/** A promise and what resolves it. */
export function gate(): { readonly passed: Promise<void>; readonly open: () => void } {
  let open: () => void = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open };
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
