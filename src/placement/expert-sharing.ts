/**
 * What GPUs compute of routed experts that lie on the processor: in decode those of which they hold a copy (decision 016), in
 * passes over long prompts all of them as they stream by (decision 017). Which layers can take part, and what there is memory
 * for. Pure; native/cuda/share_runner.h executes it.
 */
import type { SharingPlan } from '../backend/backend.ts';
import { TandemError } from '../errors.ts';
import type { Program, Step } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { weightBytes } from './budget.ts';
import { gigabytes } from './fit.ts';
import { describeHeld, describeHits, heldOf } from './held-experts.ts';
import { headroomOf, hotBudget } from './hot-experts.ts';
import { streamingPaysFrom } from './physics.ts';

/** `auto`: as the machine has room for and it pays; a number: experts of each layer, or rows of a pass. */
export type SharingWish = 'auto' | 'off' | number;

export interface SharingRequest {
  /** Experts of each layer that a GPU holds. */
  readonly hotExperts: SharingWish;
  /** Rows of a pass over prompts from which experts stream. */
  readonly streamPrefill: SharingWish;
  /** Most rows of a pass. */
  readonly maxRows: number;
  /** Rows from which streaming pays here (streaming-from.ts); default: about 32·E/k, as on a small machine. */
  readonly streamPays?: number;
  /** Hits that an upload of an expert must bring (sharing-rates.ts); Infinity: the GPU is no faster. Default 1. */
  readonly payBack?: number;
}

/** A layer whose experts the processor computes from what one GPU sends it. */
export interface SharedLayer {
  readonly layer: number;
  readonly device: string;
  readonly experts: number;
  /** Experts of a token. */
  readonly chosen: number;
  /** Steps that compute them: two where some come late, each with its own choices. */
  readonly steps: number;
  /** Of one. */
  readonly expertBytes: number;
}

/** Bytes of a card: what is left beside weights, cache and buffers, and all of it. */
export interface CardRoom {
  readonly free: number;
  readonly total: number;
}

/** Layers that can take part. */
export function sharedLayers(placed: Program): SharedLayer[] {
  const writers = new Map<number, Step>();
  for (const step of placed.steps) for (const id of step.outputs) writers.set(id, step);
  const layers = new Map<number, SharedLayer>();
  for (const step of placed.steps) {
    const device = step.op === 'experts' && deviceOf(step) === HOST ? sharedWith(placed, step, writers) : undefined;
    if (device === undefined) continue;
    const ids = step.inputs[1];
    const chosen = ids?.kind === 'value' ? ids.columns : 1;
    const known = layers.get(step.layer);
    if (known !== undefined) {
      layers.set(step.layer, { ...known, chosen: known.chosen + chosen, steps: known.steps + 1 });
      continue;
    }
    const matrices = EXPERTS.map((operand) => step.inputs[operand]);
    const bytes = matrices.reduce(
      (sum, input) => sum + (input?.kind === 'weight' ? weightBytes(placed.weights[input.weight]) : 0),
      0,
    );
    const gate = step.inputs[3];
    const experts = gate?.kind === 'weight' ? placed.weights[gate.weight].shape[0] : 1;
    layers.set(step.layer, { layer: step.layer, device, experts, chosen, steps: 1, expertBytes: bytes / experts });
  }
  return [...layers.values()];
}

/** The GPU that sends whole rows, choices and their weights, and gets the sum back; undefined: there is no such one. */
function sharedWith(placed: Program, step: Step, writers: ReadonlyMap<number, Step>): string | undefined {
  const senders = step.inputs.slice(0, 3).map((input, operand) => {
    if (input?.kind !== 'value') return undefined;
    if (operand === 0 && input.columns !== placed.values[input.value].columns) return undefined;
    const copy = writers.get(input.value);
    const from = copy?.op === 'copy' ? copy.inputs[0] : undefined;
    return from?.kind === 'value' ? deviceOf(writers.get(from.value)) : undefined;
  });
  const [device] = senders;
  if (device === undefined || device === HOST || senders.some((sender) => sender !== device)) return undefined;
  for (let value = step.outputs[0]; ; ) {
    const readers = placed.steps.filter(({ inputs }) =>
      inputs.some((input) => input?.kind === 'value' && input.value === value),
    );
    const [reader] = readers;
    if (readers.length !== 1) return undefined;
    if (reader.op === 'copy') return deviceOf(reader) === device ? device : undefined;
    if (reader.op !== 'add' || deviceOf(reader) !== HOST) return undefined;
    value = reader.outputs[0];
  }
}

/** Bytes that each card has to keep for what was asked for by a number. */
export function reservedFor(layers: readonly SharedLayer[], request: SharingRequest): ReadonlyMap<string, number> {
  const reserved = new Map<string, number>();
  for (const [device, own] of byDevice(layers)) {
    const hot = typeof request.hotExperts === 'number' ? request.hotExperts : 0;
    const held = own.reduce((sum, { experts, expertBytes }) => sum + Math.min(hot, experts) * expertBytes, 0);
    const buffers = typeof request.streamPrefill === 'number' ? leastBuffers(own) : 0;
    if (held + buffers > 0) reserved.set(device, held + buffers);
  }
  return reserved;
}

/**
 * What is held and streamed where cards have so much room. PLACEMENT_IMPOSSIBLE where a number was asked for and no layer can
 * take part, or there is no room.
 */
export function planSharing(
  layers: readonly SharedLayer[],
  room: (device: string) => CardRoom,
  request: SharingRequest,
): SharingPlan {
  const asked = typeof request.hotExperts === 'number' || typeof request.streamPrefill === 'number';
  if (layers.length === 0) {
    if (!asked) return {};
    throw impossible('experts of the processor are shared with the GPU that has all else of their layer', 'no layer is placed so', "place experts on cpu, all else on a GPU (rules: 'one-gpu'), or leave the option out"); // biome-ignore format: one thought a line
  }
  const cards = [...byDevice(layers)].map(([device, own]) => {
    const { free, total } = room(device);
    return { device, own, free: Math.max(0, free - headroomOf(total)), total };
  });
  const stream = streamOf(layers, cards, request);
  const { hotExperts, payBack } = request;
  const wish = hotExperts === 'auto' && payBack === Infinity ? 'off' : hotExperts;
  const slots = new Int32Array(Math.max(...layers.map(({ layer }) => layer)) + 1);
  let bytes = 0;
  for (const { device, own, free, total } of cards) {
    const counts = slotsOf(device, own, { free: free - (stream?.memory ?? 0), total }, wish);
    own.forEach(({ layer, expertBytes }, i) => {
      slots[layer] = counts[i];
      bytes += counts[i] * expertBytes;
    });
  }
  return {
    ...(bytes > 0 && { hot: { slots, bytes, ...(Number.isFinite(payBack) && { payBack }) } }),
    ...(stream && { stream }),
  };
}

function slotsOf(device: string, own: readonly SharedLayer[], card: CardRoom, wish: SharingWish): readonly number[] {
  const none = own.map(() => 0);
  if (wish === 'off') return none;
  const sizes = own.map(({ expertBytes }) => expertBytes);
  const most = Math.min(...own.map(({ experts }) => experts));
  if (wish === 'auto') {
    const { slots } = hotBudget({ ...card, free: card.free + headroomOf(card.total) }, sizes, most);
    return Math.min(...slots) * LEAST_SHARE >= most ? slots : none;
  }
  const wanted = own.map(({ experts }) => Math.min(wish, experts));
  const bytes = wanted.reduce((sum, count, i) => sum + count * sizes[i], 0);
  if (bytes <= card.free) return wanted;
  throw impossible(`${device} has room for the experts that it holds beside the CPU's`, `${wish} of each layer are ${gigabytes(bytes)}, ${gigabytes(card.free)} are free`, 'hold fewer (hotExperts), or take a shorter context'); // biome-ignore format: one thought a line
}

function streamOf(
  layers: readonly SharedLayer[],
  cards: readonly (CardRoom & { readonly device: string; readonly own: readonly SharedLayer[] })[],
  { streamPrefill: wish, maxRows, streamPays }: SharingRequest,
): SharingPlan['stream'] {
  const pays =
    streamPays ?? Math.max(...layers.map(({ experts, chosen }) => Math.ceil(streamingPaysFrom(experts, chosen))));
  if (wish === 'off' || (wish === 'auto' && pays > maxRows)) return undefined;
  if (layers.some(({ steps }) => steps > 1)) {
    if (wish === 'auto') return undefined;
    throw impossible('experts stream through a GPU once a pass, so all of a layer are wanted at once', 'some come a layer late', 'leave out streamPrefill or deferExperts'); // biome-ignore format: one thought a line
  }
  const each = cards.map(({ own, free }) => Math.min(free * STREAM_SHARE, 2 * largest(own)));
  const memory = Math.floor(Math.min(...each));
  const poor = cards.find(({ own, free }) => free * STREAM_SHARE < leastBuffers(own));
  if (poor === undefined) return { from: wish === 'auto' ? pays : wish, memory };
  if (wish === 'auto') return undefined;
  throw impossible(`${poor.device} has room for two buffers that experts pass through`, `${gigabytes(poor.free)} are free`, 'take a shorter context, or leave streamPrefill out'); // biome-ignore format: one thought a line
}

/** Operands gate, up and down. */
const EXPERTS = [3, 4, 5];
/**
 * Fewer experts than one in so many are not worth the launches that look for them in every layer: some 20 µs a layer, about what
 * the CPU takes for a hit in a hundred choices.
 */
const LEAST_SHARE = 64;
/** Of what is free on a card, the most that buffers of streams take. */
const STREAM_SHARE = 0.5;

/** Bytes of a whole layer: a buffer that is larger is of no use. */
function largest(own: readonly SharedLayer[]): number {
  return Math.max(...own.map(({ experts, expertBytes }) => experts * expertBytes));
}

/** Two buffers of one expert each, and padding of their parts. */
function leastBuffers(own: readonly SharedLayer[]): number {
  return 2 * Math.max(...own.map(({ expertBytes }) => expertBytes + 6 * 256));
}

function byDevice(layers: readonly SharedLayer[]): ReadonlyMap<string, readonly SharedLayer[]> {
  const found = new Map<string, SharedLayer[]>();
  for (const layer of layers) {
    const own = found.get(layer.device);
    if (own) own.push(layer);
    else found.set(layer.device, [layer]);
  }
  return found;
}

function deviceOf(step: Step | undefined): string | undefined {
  return step && (step.placement?.device ?? HOST);
}

function impossible(rule: string, given: string, fix: string): TandemError {
  return new TandemError('PLACEMENT_IMPOSSIBLE', { room: 'placement', rule, given, fix });
}

/** For people: what is held, and what streams, a line each. */
export function sharingLines(layers: readonly SharedLayer[], { hot, stream }: SharingPlan): string[] {
  const lines: string[] = [];
  if (hot) {
    const held = heldOf(layers, hot);
    lines.push(
      `in decode GPUs hold ${describeHeld(held)} (${gigabytes(hot.bytes)}), those that are asked for most, ${describeHits(held)}; the CPU computes the others`,
    );
  }
  if (stream)
    lines.push(
      `passes over prompts of ${stream.from} rows and more: the experts of ${layers.length} layers stream through ${gigabytes(stream.memory)} of the GPU`,
    );
  return lines;
}
