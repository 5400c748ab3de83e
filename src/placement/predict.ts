/**
 * How fast a model of these sizes runs on a machine, where its parts lie as a `Placing` says. A prediction is a range: a
 * machine that was probed is known to a fifth (decode) or a third (prefill), one from a data sheet to about a half.
 */
import { attentionDecodeSeconds, attentionPrefillSeconds, matrixSeconds, overheadSeconds } from './costs.ts';
import {
  decodeFromDisk,
  decodeSerial,
  decodeSharedBeside,
  distinctFactor,
  prefillOn,
  streamedSeconds,
} from './physics.ts';
import { type MachineProfile, usedGpus } from './profile.ts';
import { type MatrixWork, type Sizes, weightsPerToken } from './sizes.ts';
import { worthwhileRows } from './worthwhile-rows.ts';

/** Which parts of a model lie where. */
export interface Placing {
  /** `cpu`: everything; `hybrid`: experts on the processor, all else on GPUs; `gpu`: everything. */
  readonly kind: 'cpu' | 'hybrid' | 'gpu';
  /** Share of the routed experts, by layers, that GPUs hold. */
  readonly gpuExperts: number;
  /** Share of the experts of the processor that its memory holds; the rest is read from the disk. */
  readonly inMemory: number;
}

export interface Range {
  readonly low: number;
  readonly expected: number;
  readonly high: number;
}

export interface Prediction {
  /** Of a token (decode; of the whole batch), or of the whole prompt. */
  readonly seconds: number;
  readonly tokensPerSecond: Range;
  /** What takes most of it. */
  readonly bottleneck: string;
  /** Seconds by part; parts that run beside each other are both named. */
  readonly parts: Readonly<Record<string, number>>;
}

/** Around the expected rate: of a machine whose kernels were timed, and of one from data sheets. */
const SPREAD = {
  measured: { decode: [0.8, 1.2], prefill: [0.7, 1.3] },
  guessed: { decode: [0.5, 1.25], prefill: [0.4, 1.6] },
} as const;

/**
 * What a GPU reaches of its data sheet, seconds that a hand-over to the processor and back takes, and those of a small step
 * with a launch beside it: assumptions of 2026-11-23, not measured.
 */
const GPU = { read: 0.75, bf16: 0.4, handover: 40e-6, step: 4e-6 };

/** The disk's reads are random, one expert at a time: about as fast as sequential ones, since an expert is megabytes. */
const NO_DISK = 0.5e9;

/**
 * Of a pass while nobody else decodes, as the engine chooses it. Most rows: of 256 experts, 8 a token, each meets 64 of so
 * many, enough for tiles. Seconds that it should take, for newcomers wait for it; and may, where fewer rows would waste them.
 */
export const PASS = { rows: 2048, seconds: 4, mostSeconds: 16 };

/** How many rows a pass over a prompt takes, as the engine adapts it (`ChunkSize`). */
export interface PassSize {
  readonly rows: number;
  /** `rows`, or more where so many are worth their time. */
  rowsFor?(worthwhile: number): number;
  measured(rows: number, milliseconds: number): void;
}

/** One token of each of `batch` sequences at position `context`. */
export function predictDecode(
  sizes: Sizes,
  profile: MachineProfile,
  placing: Placing,
  { context, batch = 1 }: { readonly context: number; readonly batch?: number },
): Prediction {
  const cpu = (test: (work: MatrixWork) => boolean) => sum(sizes.matrices.filter(test), (work) => matrixSeconds(work, batch, profile)); // biome-ignore format: one thought a line
  const [gpu] = usedGpus(profile);
  const onGpu = placing.kind !== 'cpu' && gpu !== undefined;
  const touched = sizes.routedPerToken * distinctFactor(sizes.experts, sizes.chosen, batch);
  const routedBytes = touched * (1 - placing.gpuExperts);
  const routedSeconds = cpu(isRouted) * (1 - placing.gpuExperts);
  const routed = traffic(routedBytes, routedSeconds);
  const attention = sum(sizes.attention, (work) => attentionDecodeSeconds(work, context, profile)) * batch;
  const cacheBytes = sizes.kvBytesPerToken * context * batch;
  const overhead = onGpu ? sizes.smallSteps * GPU.step : overheadSeconds(sizes, batch, profile);
  const memory = gpu && gpu.bandwidth * GPU.read;
  const gpuRouted = onGpu ? (touched * placing.gpuExperts) / memory : 0;
  const handover = placing.kind === 'hybrid' ? sizes.moeLayers * (1 - placing.gpuExperts) * GPU.handover : 0;
  const dense = onGpu
    ? { bytes: sizes.densePerToken, bandwidth: memory }
    : traffic(
        sizes.densePerToken,
        cpu((work) => !isRouted(work)),
      );
  const cache = onGpu ? { bytes: cacheBytes, bandwidth: memory } : traffic(cacheBytes, attention);
  const ssd = profile.disk?.bandwidth ?? NO_DISK;
  const fromDisk = (routedBytes * (1 - placing.inMemory)) / ssd;
  let seconds: number;
  if (placing.inMemory < 1) {
    const rates = { hit: placing.inMemory, routedBytes, ssd, dram: routed.bandwidth };
    seconds = decodeFromDisk({ ...rates, dense }) + cache.bytes / cache.bandwidth;
  } else if (onGpu) {
    const shared = { bytes: sizes.sharedPerToken, bandwidth: memory };
    const rest = { bytes: sizes.densePerToken - sizes.sharedPerToken, bandwidth: memory };
    seconds = decodeSharedBeside({ routed, shared, rest, cache });
  } else seconds = decodeSerial({ routed, dense, cache });
  seconds += gpuRouted + handover + overhead;
  const parts = {
    'reads of the disk': fromDisk,
    'experts in memory': routedSeconds * placing.inMemory,
    [onGpu ? 'memory of the GPU' : 'dense weights in memory']: gpuRouted + dense.bytes / dense.bandwidth,
    'attention over the context': cacheBytes === 0 ? 0 : cache.bytes / cache.bandwidth,
    'hand-over to the GPU': handover,
    'steps without weights': overhead,
  };
  return { ...ranged(batch / seconds, seconds, parts, spreadOf(profile, placing, 'decode')) };
}

/**
 * A prompt from its first token, in passes of at most `rows`; on the processor, where a `passSize` is given, of as many as
 * it settles on: a prompt before this one has taught it.
 */
export function predictPrefill(
  sizes: Sizes,
  profile: MachineProfile,
  placing: Placing,
  request: { readonly prompt: number; readonly rows?: number; readonly passSize?: PassSize },
): Prediction & { readonly rows: number; readonly streamed: boolean } {
  const { prompt, rows = PASS.rows, passSize = { rows, measured: () => {} } } = request;
  const size: PassSize = placing.kind === 'cpu' ? passSize : { rows, measured: () => {} };
  const worthwhile = worthwhileRows(sizes.attention, sum(sizes.matrices, weightsPerToken));
  const parts: Record<string, number> = {};
  let [streamed, passes] = [false, 0];
  for (const counted of [false, true]) {
    for (let first = 0; first < prompt; ) {
      const left = prompt - first;
      const wanted = size.rowsFor?.(worthwhile(first)) ?? size.rows;
      const taken = Math.ceil(left / Math.ceil(left / Math.min(wanted, rows)));
      const pass = passSeconds(sizes, profile, placing, first, taken);
      size.measured(taken, total(pass.parts) * 1000);
      first += taken;
      if (!counted) continue;
      passes++;
      streamed ||= pass.streamed;
      for (const [part, time] of Object.entries(pass.parts)) parts[part] = (parts[part] ?? 0) + time;
    }
  }
  const seconds = total(parts);
  const range = ranged(prompt / seconds, seconds, parts, spreadOf(profile, placing, 'prefill'));
  return { ...range, rows: Math.ceil(prompt / passes), streamed };
}

function passSeconds(
  sizes: Sizes,
  profile: MachineProfile,
  placing: Placing,
  first: number,
  rows: number,
): { readonly streamed: boolean; readonly parts: Readonly<Record<string, number>> } {
  const cpu = (test: (work: MatrixWork) => boolean, n = rows) => sum(sizes.matrices.filter(test), (work) => matrixSeconds(work, n, profile)); // biome-ignore format: one thought a line
  const head = ({ role }: MatrixWork) => role === 'head';
  const [gpu] = usedGpus(profile);
  const onGpu = placing.kind !== 'cpu' && gpu !== undefined;
  const distinct = sizes.routedPerToken * distinctFactor(sizes.experts, sizes.chosen, rows);
  const disk = (distinct * (1 - placing.gpuExperts) * (1 - placing.inMemory)) / (profile.disk?.bandwidth ?? NO_DISK);
  const computed = cpu(isRouted) * (1 - placing.gpuExperts);
  if (!onGpu) {
    const attention = sum(sizes.attention, (work) => attentionPrefillSeconds(work, first, rows, profile));
    const dense = cpu((work) => !isRouted(work) && !head(work)) + cpu(head, 1);
    return {
      streamed: false,
      parts: {
        'reads of the disk': disk,
        'arithmetic of the experts': computed,
        'arithmetic of the dense layers': dense,
        attention,
        'steps without weights': overheadSeconds(sizes, rows, profile),
      },
    };
  }
  const bf16 = gpu.bf16 * GPU.bf16;
  const memory = gpu.bandwidth * GPU.read;
  const routedWeights = sum(sizes.matrices.filter(isRouted), weightsPerToken);
  const denseWeights = sum(
    sizes.matrices.filter((work) => !isRouted(work) && !head(work)),
    weightsPerToken,
  );
  const attended = sum(sizes.attention, (work) => work.expandedPerPair * work.layers * rows * (first + rows / 2));
  const dense = prefillOn(
    { bytes: sizes.densePerToken, bandwidth: memory },
    2 * (denseWeights * rows + attended),
    bf16,
  );
  const held = { bytes: distinct * placing.gpuExperts, bandwidth: memory };
  const onCard = prefillOn(held, 2 * routedWeights * rows * placing.gpuExperts, bf16);
  const upload = sizes.routedBytes * (1 - placing.gpuExperts);
  const streaming = streamedSeconds({ bytes: upload, bandwidth: gpu.pcie }, 2 * routedWeights * rows, bf16);
  const streamed = placing.kind === 'hybrid' && placing.inMemory === 1 && streaming < computed;
  return {
    streamed,
    parts: {
      'reads of the disk': disk,
      [streamed ? 'uploads of experts' : 'arithmetic of the experts']: streamed ? streaming : computed,
      'arithmetic of the GPU': dense + onCard,
      'steps without weights': sizes.smallSteps * GPU.step,
    },
  };
}

function isRouted({ role }: MatrixWork): boolean {
  return role === 'routed';
}

function traffic(bytes: number, seconds: number) {
  return { bytes, bandwidth: seconds > 0 ? bytes / seconds : Infinity };
}

function spreadOf(profile: MachineProfile, placing: Placing, phase: 'decode' | 'prefill'): readonly [number, number] {
  const known = profile.kernels !== undefined && placing.kind === 'cpu' && placing.inMemory === 1;
  return SPREAD[known ? 'measured' : 'guessed'][phase];
}

function ranged(
  rate: number,
  seconds: number,
  parts: Readonly<Record<string, number>>,
  [low, high]: readonly [number, number],
): Prediction {
  const [bottleneck] = Object.entries(parts).reduce((a, b) => (b[1] > a[1] ? b : a));
  return { seconds, tokensPerSecond: { low: rate * low, expected: rate, high: rate * high }, bottleneck, parts };
}

function total(parts: Readonly<Record<string, number>>): number {
  return sum(Object.values(parts), (value) => value);
}

function sum<T>(items: readonly T[], measure: (item: T) => number): number {
  return items.reduce((all, item) => all + measure(item), 0);
}
