/** When sharing experts with GPUs pays, by what is known of a machine: measured rates where they were, data sheets else. */

import type { Program } from '../program/program.ts';
import { matrixSeconds, readable } from './costs.ts';
import type { SharedLayer, SharingRequest } from './expert-sharing.ts';
import { hitsToPayBack } from './hot-experts.ts';
import { type MachineProfile, usedGpus } from './profile.ts';
import { bytesPerToken } from './sizes.ts';
import { GPU } from './step-seconds.ts';
import { streamingFrom, worksOf } from './streaming-from.ts';

/** The request with the rows from which streaming pays on this machine, and the hits that pay an upload back. */
export function withRates(
  placed: Program,
  layers: readonly SharedLayer[],
  profile: MachineProfile | undefined,
  request: SharingRequest,
): SharingRequest {
  if (profile === undefined || layers.length === 0) return request;
  const streamPays = request.streamPrefill === 'auto' ? streamingFrom(placed, layers, profile, request.maxRows) : undefined; // biome-ignore format: one thought a line
  return { ...request, streamPays, payBack: payBackOf(placed, layers, profile) };
}

/** Of the card that gains least; Infinity: some is no faster than the processor. Undefined: nothing is known of a card. */
function payBackOf(placed: Program, layers: readonly SharedLayer[], profile: MachineProfile): number | undefined {
  const gpus = new Map(usedGpus(profile).map((gpu) => [gpu.device, gpu]));
  let most = 0;
  for (const device of new Set(layers.map((layer) => layer.device))) {
    const gpu = gpus.get(device);
    if (gpu === undefined) return undefined;
    const works = worksOf(placed, layers.filter((layer) => layer.device === device)); // biome-ignore format: one thought a line
    const bytes = works.reduce((sum, work) => sum + bytesPerToken(work), 0);
    const seconds = works.reduce((sum, work) => sum + matrixSeconds(work, 1, profile), 0);
    most = Math.max(most, hitsToPayBack({ cpu: bytes / seconds, dram: readable(profile), gpu: gpu.bandwidth * GPU.read })); // biome-ignore format: one thought a line
  }
  return most;
}
