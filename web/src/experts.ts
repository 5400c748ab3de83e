/** The heat of every expert: bright when it fires, brighter the more often, fading after. Fed by the server's stream while somebody looks. */
import { effect, signal } from '@preact/signals';
import { models } from './models.ts';
import { expertsShown } from './panel.ts';
import { sseData } from './sse.ts';
import { call } from './wire.ts';

interface ExpertsEvent {
  /** Numbers of the layers that have experts. */
  readonly layers: readonly number[];
  readonly experts: number;
  /** Per layer of `layers`: who fired since the last event. */
  readonly fired: readonly (readonly number[])[];
  /** How often each of them did. */
  readonly times: readonly (readonly number[])[];
  readonly place: 'ram' | 'mapped';
}

export interface ExpertsHeat {
  readonly layers: readonly number[];
  readonly experts: number;
  place: ExpertsEvent['place'];
  /** Layer by layer, when each expert last fired, in ms of performance.now(); −Infinity for never. */
  readonly last: Float64Array;
  /** How often each fired since the panel was opened. */
  readonly counts: Uint32Array;
  /** How often lately: what is longer ago than some seconds counts little. As of `at`. */
  readonly lately: Float64Array;
  at: number;
}

/** Milliseconds until an expert's heat has fallen to 1/e. */
const FADE_MS = 1000;

/** Milliseconds until a firing counts 1/e in `lately`. */
const LATELY_MS = 3000;

/** Until a stream that ended is asked for again. */
const AGAIN_MS = 5000;

/** False where the server has no such route, or the model no experts. */
export const expertsExist = signal(false);

export const heat = signal<ExpertsHeat | undefined>(undefined);

/** 1 when it fires, fading after. */
export function heatAt({ last }: ExpertsHeat, index: number, now: number): number {
  return Math.exp((last[index] - now) / FADE_MS);
}

function take({ layers, experts, fired, times, place }: ExpertsEvent): void {
  const size = layers.length * experts;
  const now = performance.now();
  let map = heat.value;
  if (map === undefined || map.last.length !== size || map.experts !== experts)
    map = {
      layers,
      experts,
      place,
      last: new Float64Array(size).fill(-Infinity),
      counts: new Uint32Array(size),
      lately: new Float64Array(size),
      at: now,
    };
  const faded = Math.exp((map.at - now) / LATELY_MS);
  for (let i = 0; i < size; i++) map.lately[i] *= faded;
  map.at = now;
  fired.forEach((ids, row) => {
    ids.forEach((id, i) => {
      const cell = row * experts + id;
      map.last[cell] = now;
      map.counts[cell] += times[row][i];
      map.lately[cell] += times[row][i];
    });
  });
  map.place = place;
  heat.value = map;
}

/** Follows the stream, again and again: it ends where a model is put away, and comes back with it. */
async function follow(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      const reply = await call('experts/stream', { signal }, false);
      expertsExist.value = true;
      for await (const data of sseData(reply)) take(JSON.parse(data) as ExpertsEvent);
    } catch {
      if (!expertsExist.value) return;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** Asked once a model is there, and again whenever the panel opens. */
effect(() => {
  if (!models.value.some(({ status }) => status?.value === 'loaded')) return undefined;
  const abort = new AbortController();
  const shown = expertsShown.value;
  void follow(abort.signal);
  // Closed, one answer tells whether there is anything to see; the stream itself is not needed.
  const timer = shown ? undefined : setTimeout(() => abort.abort(), 1000);
  return () => {
    clearTimeout(timer);
    abort.abort();
  };
});
