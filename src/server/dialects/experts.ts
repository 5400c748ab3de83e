/**
 * `GET /experts/stream`: which experts fire, as server-sent events, for the page's live view. An event tells of the time since
 * the last: `fired[i]` are the ids chosen in layer `layers[i]`, `times[i]` how often each was.
 */
import type { Engine } from '../../engine/engine.ts';
import { TandemError } from '../../errors.ts';
import type { Dialect } from '../context.ts';
import { get } from '../routes.ts';
import { SSE_PING, sseEvent } from '../stream.ts';
import { openaiError } from './openai/failure.ts';

/** Between two looks; a person sees no more. */
const LOOK_MS = 200;

export const experts: Dialect = {
  name: 'experts',
  owns: (path) => path.startsWith('/experts/'),
  errorBody: openaiError,
  mount(app, server) {
    get(app, experts, {
      paths: ['/experts/stream'],
      tag: 'Operation',
      summary: 'Which experts fire, live',
      handle: (request) => {
        const engine = server.models.peek('');
        const first = engine?.expertVisits();
        if (engine === undefined || first === undefined || first.layers.length === 0)
          throw new TandemError('ROUTE_UNKNOWN', {
            room: 'server',
            rule: 'experts are watched on a loaded model that has some',
            given: engine === undefined ? 'no model is loaded' : 'this one has none, or its backend does not count',
          });
        const format = {
          contentType: 'text/event-stream' as const,
          heartbeat: () => SSE_PING,
          failure: () => '',
        };
        return server.stream(request, format, async (out) => {
          const signal = request.get('signal');
          let before = first.counts;
          while (!signal.aborted && server.models.peek('') === engine) {
            await pause(LOOK_MS, signal);
            const { layers, experts: width, counts } = engine.expertVisits()!;
            const fired = Array.from(layers, (_, row) => changed(before, counts, row * width, width));
            const times = fired.map((ids, row) =>
              ids.map((e) => (counts[row * width + e] - before[row * width + e]) >>> 0),
            );
            before = counts;
            if (fired.every((ids) => ids.length === 0)) continue;
            const data = { layers: [...layers], experts: width, fired, times, place: placeOf(engine) };
            await out.write(sseEvent(data));
          }
        });
      },
    });
  },
};

function changed(before: Uint32Array, after: Uint32Array, start: number, width: number): number[] {
  const ids: number[] = [];
  for (let e = 0; e < width; e++) if (before[start + e] !== after[start + e]) ids.push(e);
  return ids;
}

/** Where the experts' weights are served from. */
function placeOf({ info }: Engine): 'ram' | 'mapped' {
  return Number(info.execution['mapped bytes'] ?? 0) > 0 ? 'mapped' : 'ram';
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
  });
}
