/** What `load` does about experts that GPUs compute beside the processor: what was asked for, what there is room for, what came of it. */
import { memoryByDevice } from '../placement/device-memory.ts';
import {
  type CardRoom,
  planSharing,
  reservedFor,
  type SharedLayer,
  type SharingRequest,
  type SharingWish,
  sharedLayers,
  sharingLines,
} from '../placement/expert-sharing.ts';
import type { Machine } from '../placement/lower.ts';
import { streamingFrom } from '../placement/streaming-from.ts';
import type { Program } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { memoryFor } from './gpus.ts';
import type { MemoryRequest } from './memory.ts';
import { invalid } from './sampling.ts';

export interface SharingOptions {
  readonly hotExperts?: SharingWish;
  readonly streamPrefill?: SharingWish;
}

interface Circumstances {
  readonly exact: boolean;
  /** Activations are rounded: somebody runs the model rather than judges it. */
  readonly rounded: boolean;
  readonly judging: boolean;
  readonly maxRows: number;
}

/** Experts of a layer that a table can name. */
const MOST_EXPERTS = 32767;

/** REQUEST_INVALID for numbers that are none, and for numbers where they would break a promise. */
export function sharingRequest(
  { hotExperts, streamPrefill }: SharingOptions,
  { exact, rounded, judging, maxRows }: Circumstances,
): SharingRequest {
  const wish = (name: keyof SharingOptions, given: SharingWish = 'auto', low: number, high: number): SharingWish => {
    const number = typeof given === 'number' && Number.isInteger(given) && given >= low && given <= high;
    if (given !== 'auto' && given !== 'off' && !number) throw invalid(name, `auto, off or ${low} to ${high}`, given);
    if (given === 'off') return given;
    if (number && judging) throw invalid(name, 'for the native backend', given, 'leave out the one or the other');
    if (number && exact)
      throw invalid(name, 'off in exact mode: a GPU rounds otherwise than the processor, so what it computes shows in the last bits', given, 'leave out the one or the other'); // biome-ignore format: one thought a line
    return number || (rounded && !exact && !judging) ? given : 'off';
  };
  return {
    hotExperts: wish('hotExperts', hotExperts, 1, MOST_EXPERTS),
    streamPrefill: wish('streamPrefill', streamPrefill, 2, 65536),
    maxRows,
  };
}

/** What is left on each card beside what a placed Program takes there. */
export function cardRoom(
  placed: Program,
  machine: Machine,
  limits: { readonly pages: number; readonly maxRows: number; readonly maxOutputs: number; readonly vram?: number },
): (device: string) => CardRoom {
  const all = memoryByDevice(placed, limits).filter(({ device }) => device !== HOST);
  const taken = all.reduce((sum, { total }) => sum + total, 0);
  const budget = ((limits.vram || Infinity) - taken) / all.length;
  return (device) => {
    const total = machine.devices?.find(({ name }) => name === device)?.memory ?? 0;
    const own = all.find((each) => each.device === device)?.total ?? 0;
    return { free: Math.max(0, Math.min(total - own, budget)), total };
  };
}

/** The request, with the rows from which streaming pays on this machine, where something is known of it. */
export function onMachine(
  placed: Program,
  layers: readonly SharedLayer[],
  { profile }: Machine,
  request: SharingRequest,
): SharingRequest {
  if (profile === undefined || layers.length === 0 || request.streamPrefill !== 'auto') return request;
  return { ...request, streamPays: streamingFrom(placed, layers, profile, request.maxRows) };
}

/** What `load` would hold and stream, a line each. PLACEMENT_IMPOSSIBLE where a number was asked for that there is no room for. */
export function describeSharing(
  placed: Program,
  machine: Machine,
  { sharing, ...request }: MemoryRequest & { readonly vram?: number; readonly sharing: SharingRequest },
): string[] {
  const layers = sharedLayers(placed);
  if (layers.length === 0) return [];
  const { pages } = memoryFor(placed, machine, { ...request, reserved: reservedFor(layers, sharing) });
  const wanted = onMachine(placed, layers, machine, sharing);
  return sharingLines(layers, planSharing(layers, cardRoom(placed, machine, { ...request, pages }), wanted));
}

/** Sentences for people: what was to be shared and is not. */
export function sharingWarnings(description: Readonly<Record<string, string | number>>): string[] {
  return (
    [
      ['hot experts', 'GPUs hold no experts'],
      ['streamed prefill', 'prompts are not streamed'],
    ] as const
  ).flatMap(([key, what]) => {
    const [, why] = /^off: (.*)$/s.exec(String(description[key] ?? '')) ?? [];
    return why === undefined ? [] : [`${what}: ${why}`];
  });
}
