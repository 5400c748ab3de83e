/** What `load` does about experts that GPUs compute beside the processor: what was asked for, what there is room for, what came of it. */
import { cardRoom } from '../placement/card-room.ts';
import {
  planSharing,
  reservedFor,
  type SharingRequest,
  type SharingWish,
  sharedLayers,
  sharingLines,
} from '../placement/expert-sharing.ts';
import type { Machine } from '../placement/lower.ts';
import { withRates } from '../placement/sharing-rates.ts';
import type { Program } from '../program/program.ts';
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

/** What `load` would hold and stream, a line each. PLACEMENT_IMPOSSIBLE where a number was asked for that there is no room for. */
export function describeSharing(
  placed: Program,
  machine: Machine,
  { sharing, ...request }: MemoryRequest & { readonly vram?: number; readonly sharing: SharingRequest },
): string[] {
  const layers = sharedLayers(placed);
  if (layers.length === 0) return [];
  const { pages } = memoryFor(placed, machine, { ...request, reserved: reservedFor(layers, sharing) });
  const wanted = withRates(placed, layers, machine.profile, sharing);
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
