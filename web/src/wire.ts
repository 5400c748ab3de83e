/** The server's HTTP as this page uses it: models, streamed chat, the experts. Keys are added here, errors become words. */
import { signal } from '@preact/signals';
import { sseData } from './sse.ts';
import { stored } from './stored.ts';
import { fill, words } from './words.ts';

export interface Timings {
  readonly cache_n?: number;
  readonly prompt_n?: number;
  readonly prompt_per_second?: number;
  readonly predicted_n?: number;
  readonly predicted_per_second?: number;
}

export interface ChatChunk {
  readonly choices?: readonly {
    readonly delta?: {
      readonly content?: string | null;
      readonly reasoning_content?: string | null;
      readonly tool_calls?: readonly {
        readonly index: number;
        readonly id?: string;
        readonly function?: { readonly name?: string; readonly arguments?: string };
      }[];
    };
    readonly finish_reason?: 'stop' | 'length' | 'tool_calls' | null;
  }[];
  readonly prompt_progress?: { readonly total: number; readonly cache: number; readonly processed: number };
  readonly timings?: Timings;
  readonly error?: { readonly message?: string };
}

export interface ModelEntry {
  readonly id: string;
  readonly status?: { readonly value?: string };
  readonly meta?: { readonly quantization?: string; readonly progress?: number };
}

/** What the server said no with, in words for the reader. */
export class ServerFailure extends Error {}

const apiKey = stored('key', '', () => sessionStorage);

/** Set while the server waits for a key: called with one, or with none to give up. */
export const keyAsked = signal<((key: string | undefined) => void) | undefined>(undefined);

let asking: Promise<string | undefined> | undefined;

/** One question for all requests that met a 401 meanwhile. */
function askKey(): Promise<string | undefined> {
  asking ??= new Promise<string | undefined>((resolve) => {
    keyAsked.value = resolve;
  }).finally(() => {
    keyAsked.value = undefined;
    asking = undefined;
  });
  return asking;
}

/**
 * A request to this server. Where a key is wanted it asks the reader (not with `asks` false: what nobody waits for) and
 * tries again. Throws ServerFailure, or the abort.
 */
export async function call(path: string, init: RequestInit = {}, asks = true): Promise<Response> {
  for (;;) {
    const sent = apiKey.value;
    let reply: Response;
    try {
      const headers = { 'content-type': 'application/json', ...(sent ? { authorization: `Bearer ${sent}` } : {}) };
      reply = await fetch(path, { ...init, headers, credentials: 'omit', cache: 'no-store' });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ServerFailure(words.value.offline);
    }
    if (reply.status === 401 && (apiKey.value !== sent || (asks && (await newKey())))) continue;
    if (!reply.ok) throw new ServerFailure(fill(words.value.failed, { why: await reason(reply) }));
    return reply;
  }
}

async function newKey(): Promise<boolean> {
  const key = await askKey();
  if (key) apiKey.value = key;
  return Boolean(key);
}

async function reason(reply: Response): Promise<string> {
  const text = await reply.text();
  try {
    const { error } = JSON.parse(text) as ChatChunk;
    if (error?.message) return error.message;
  } catch {
    // Not this server's JSON: a proxy in between.
  }
  return `${reply.status} ${reply.statusText}`;
}

export async function fetchModels(asks: boolean): Promise<ModelEntry[]> {
  const reply = await call('v1/models', {}, asks);
  return ((await reply.json()) as { data: ModelEntry[] }).data;
}

/** The chunks of one answer. Ends early with ServerFailure where the stream tells of an error or breaks off. */
export async function* streamChat(body: object, signal: AbortSignal): AsyncGenerator<ChatChunk> {
  const asked = { ...body, stream: true, stream_options: { include_usage: true }, return_progress: true };
  const reply = await call('v1/chat/completions', { method: 'POST', body: JSON.stringify(asked), signal });
  try {
    for await (const data of sseData(reply)) {
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data) as ChatChunk;
      if (chunk.error) throw new ServerFailure(fill(words.value.failed, { why: chunk.error.message ?? '' }));
      yield chunk;
    }
  } catch (error) {
    if (signal.aborted || error instanceof ServerFailure) throw error;
  }
  throw new ServerFailure(words.value.broken);
}
