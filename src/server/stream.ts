/**
 * A response written piece by piece. Headers go out at once; while nothing else is written a heartbeat is; when the client
 * goes away `signal` aborts; what the writer throws becomes the dialect's failure event, and the stream ends.
 */
import type { TandemError } from '../errors.ts';
import type { StreamFormat, StreamWriter } from './context.ts';

export interface StreamOptions {
  readonly format: StreamFormat;
  readonly heartbeatMs: number;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
  /** What the client is told of what was thrown. */
  readonly onFailure: (error: unknown) => TandemError;
  readonly headers?: Record<string, string>;
}

export function streamResponse(
  { format, heartbeatMs, signal, onFailure, headers = {} }: StreamOptions,
  write: (out: StreamWriter) => Promise<void>,
  cancel: () => void,
): Response {
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setInterval> | undefined;
  let wake: (() => void) | undefined;
  let gone = false;
  let last = performance.now();

  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const send = (text: string) => {
          last = performance.now();
          controller.enqueue(encoder.encode(text));
        };
        send(format.heartbeat());
        timer = setInterval(
          () => {
            if (performance.now() - last >= heartbeatMs) send(format.heartbeat());
          },
          Math.min(heartbeatMs, 1000),
        );
        const out: StreamWriter = {
          async write(text) {
            if (gone) throw signal.reason;
            if (text !== '') send(text);
            while (!gone && (controller.desiredSize ?? 0) <= 0)
              await new Promise<void>((resolve) => {
                wake = resolve;
              });
          },
        };
        const end = (tail?: string) => {
          clearInterval(timer);
          if (gone) return;
          gone = true;
          if (tail !== undefined) controller.enqueue(encoder.encode(tail));
          controller.close();
        };
        write(out).then(
          () => end(),
          (error) => {
            if (gone) return;
            end(format.failure(onFailure(error)));
          },
        );
      },
      pull() {
        wake?.();
        wake = undefined;
      },
      cancel() {
        gone = true;
        clearInterval(timer);
        cancel();
        wake?.();
      },
    },
    // Bytes in flight before the writer waits.
    new ByteLengthQueuingStrategy({ highWaterMark: 64 * 1024 }),
  );
  return new Response(body, {
    headers: {
      'content-type': `${format.contentType}; charset=utf-8`,
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      ...headers,
    },
  });
}

/** One server-sent event. JSON has no raw line breaks, so one line is enough. */
export function sseEvent(data: unknown, event?: string): string {
  const name = event === undefined ? '' : `event: ${event}\n`;
  return `${name}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
}

/** An SSE comment: ignored by every client. */
export const SSE_PING = ': ping\n\n';
