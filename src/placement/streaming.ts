/**
 * Long prompts beside a GPU: all experts of a model pass through it once a micro-batch, instead of being computed by the CPU.
 * From how many rows that pays, in which pieces they travel, and in which order pieces are staged, uploaded and computed.
 * Pure: sizes and rates in, a list of operations out; native/cuda/streaming.h executes it (decision 017).
 *
 *     host      stage 0 │ stage 1 │ stage 2 …                      weights → ring of pinned memory
 *     copies            │ upload 0│ upload 1 │ upload 2 …          ring → one of two buffers
 *     computes                    │ group 0          │ group 1 …   all pieces of a group are there
 *
 * What is sent does not depend on what routers chose: with so many rows nearly every expert is visited, and uploads run ahead of
 * routers and attention, into the next layer.
 */
import { streamedSeconds } from './physics.ts';

export interface StreamedExperts {
  /** Bytes of one expert of each layer that is streamed. */
  readonly expertBytes: readonly number[];
  readonly experts: number;
  /** Routed weights that one token is multiplied with, all layers. */
  readonly weightsPerToken: number;
}

export interface StreamRates {
  /** Bytes per second from pinned memory to the card. */
  readonly pcie: number;
  /** Operations per second that its expert kernels reach. */
  readonly operations: number;
}

/** Seconds that a micro-batch of so many rows takes of all streamed experts, once the pipeline is full. */
export function microBatchSeconds(
  { expertBytes, experts, weightsPerToken }: StreamedExperts,
  rates: StreamRates,
  rows: number,
): number {
  const bytes = expertBytes.reduce((sum, one) => sum + one * experts, 0);
  return streamedSeconds({ bytes, bandwidth: rates.pcie }, 2 * weightsPerToken * rows, rates.operations);
}

/**
 * Rows from which a pass streams: the fewest, at most `most`, from which on it is faster than `cpuSeconds` says that the CPU
 * computes the same experts; undefined: never. About 32·E/k (`streamingPaysFrom`).
 */
export function streamsFrom(
  model: StreamedExperts,
  rates: StreamRates,
  cpuSeconds: (rows: number) => number,
  most: number,
): number | undefined {
  const pays = (rows: number) => microBatchSeconds(model, rates, rows) < cpuSeconds(rows);
  if (model.expertBytes.length === 0 || !pays(most)) return undefined;
  // Both grow with the rows; the upload has a part that does not, so they cross once.
  let [low, high] = [0, most];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (pays(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/** Experts [first, end) of a layer (index in `expertBytes`): what one of the two buffers holds at a time. */
export interface StreamGroup {
  readonly layer: number;
  readonly first: number;
  readonly end: number;
  readonly bytes: number;
}

export interface StreamMemory {
  /** Of the card, for both buffers. */
  readonly device: number;
  /** Pinned, for the ring; 0: weights are pinned where they lie, and uploads read them there. */
  readonly ring: number;
}

/** Bytes of a place of the ring: long enough for the bus, short enough that the first upload begins soon. */
const PIECE = 16 * 2 ** 20;

export interface StreamOperation {
  /** `stage`: the host copies a piece into a place of the ring. `upload`: to a buffer. `compute`: the experts of a group. */
  readonly kind: 'stage' | 'upload' | 'compute';
  readonly group: number;
  /** Of `stage` and `upload`: bytes [start, start + bytes) of the group. */
  readonly start: number;
  readonly bytes: number;
  /** Place of the ring; −1: none. */
  readonly place: number;
  /** Which of the two. */
  readonly buffer: number;
  /** Operations that must be over before it, besides those of its kind: each kind runs in the order of the list. */
  readonly after: readonly number[];
}

export interface StreamPlan {
  readonly groups: readonly StreamGroup[];
  /** Bytes of each of the two buffers. */
  readonly bufferBytes: number;
  readonly places: number;
  readonly placeBytes: number;
  readonly operations: readonly StreamOperation[];
}

/** A micro-batch; undefined where a buffer cannot hold one expert, or the ring not two pieces. */
export function planStream({ expertBytes, experts }: StreamedExperts, memory: StreamMemory): StreamPlan | undefined {
  const most = Math.floor(memory.device / 2);
  const groups = groupsOf(expertBytes, experts, most);
  const pinned = memory.ring === 0;
  const bufferBytes = Math.max(0, ...(groups ?? []).map(({ bytes }) => bytes));
  const placeBytes = pinned ? 0 : Math.min(PIECE, Math.floor(memory.ring / 2));
  const places = pinned || placeBytes === 0 ? 0 : Math.floor(memory.ring / placeBytes);
  if (!groups || (!pinned && places < 2)) return undefined;
  return { groups, bufferBytes, places, placeBytes, operations: operationsOf(groups, places, placeBytes) };
}

/** Even groups: the last of a layer is not a small rest. */
function groupsOf(expertBytes: readonly number[], experts: number, most: number): StreamGroup[] | undefined {
  const groups: StreamGroup[] = [];
  for (const [layer, bytes] of expertBytes.entries()) {
    const fit = Math.min(experts, Math.floor(most / bytes));
    if (fit < 1) return undefined;
    const count = Math.ceil(experts / fit);
    for (let i = 0; i < count; i++) {
      const [first, end] = [Math.floor((experts * i) / count), Math.floor((experts * (i + 1)) / count)];
      groups.push({ layer, first, end, bytes: (end - first) * bytes });
    }
  }
  return groups;
}

function operationsOf(groups: readonly StreamGroup[], places: number, placeBytes: number): StreamOperation[] {
  const operations: StreamOperation[] = [];
  const computed: number[] = [];
  /** Upload that emptied each place last. */
  const emptied: number[] = [];
  let pieces = 0;
  groups.forEach(({ bytes }, group) => {
    const buffer = group % 2;
    const step = places === 0 ? bytes : placeBytes;
    // A buffer is free when the group before the last has been computed.
    const free = group < 2 ? [] : [computed[group - 2]];
    for (let start = 0; start < bytes; start += step) {
      const piece = { group, start, bytes: Math.min(step, bytes - start), buffer };
      const after = start === 0 ? [...free] : [];
      if (places === 0) operations.push({ ...piece, kind: 'upload', place: -1, after });
      else {
        const place = pieces++ % places;
        operations.push({
          ...piece,
          kind: 'stage',
          place,
          after: emptied[place] === undefined ? [] : [emptied[place]],
        });
        after.push(operations.length - 1);
        emptied[place] = operations.push({ ...piece, kind: 'upload', place, after }) - 1;
      }
    }
    const uploaded = operations.length - 1;
    computed.push(
      operations.push({ kind: 'compute', group, start: 0, bytes, place: -1, buffer, after: [uploaded] }) - 1,
    );
  });
  return operations;
}

/**
 * Seconds from the first to the last operation where each kind runs by itself: `stage` and `pcie` bytes per second, `compute`
 * seconds of a group (a layer's attention counted with its first).
 */
export function planSeconds(
  { groups, operations }: StreamPlan,
  rates: { readonly stage: number; readonly pcie: number; readonly compute: (group: StreamGroup) => number },
): number {
  const ends: number[] = [];
  const last = { stage: 0, upload: 0, compute: 0 };
  operations.forEach(({ kind, group, bytes, after }, index) => {
    const takes = { stage: bytes / rates.stage, upload: bytes / rates.pcie, compute: rates.compute(groups[group]) }[
      kind
    ];
    const begin = Math.max(last[kind], ...after.map((before) => ends[before]));
    ends[index] = last[kind] = begin + takes;
  });
  return Math.max(0, ...ends);
}
