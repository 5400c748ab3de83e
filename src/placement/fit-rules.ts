/**
 * Whether a model fits where rules put it: of a placed Program what each device holds, against what it may. The automatic
 * placement's own decision is `fit.ts`; this one moves nothing.
 */
import { PAGE_TOKENS, type Program } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { weightBytes } from './budget.ts';
import { CARD_CACHE_SHARE } from './card-room.ts';
import { type DeviceMemory, memoryByDevice } from './device-memory.ts';
import {
  CACHE_SHARE,
  clamp,
  type Fit,
  type FitRequest,
  gigabytes,
  LEAST_CONTEXT,
  limitsOf,
  OUTPUTS,
  ROWS,
  roomOf,
  usableOf,
} from './fit.ts';
import { type MachineProfile, usedGpus } from './profile.ts';
import type { Sizes } from './sizes.ts';

/** `programs`: lowerings of one, of the sizes. The context was checked by `fitModel`. */
export function fitRules(
  sizes: Sizes,
  programs: readonly Program[],
  profile: MachineProfile,
  request: FitRequest = {},
): Fit {
  const limits = limitsOf(roomOf(profile), request);
  const cards = new Map(usedGpus(profile).map(({ device, memoryBytes }) => [device, usableOf(memoryBytes)]));
  const rows = { maxRows: request.rows ?? ROWS, maxOutputs: OUTPUTS };
  const experts = expertsOnHost(programs);
  const bare = memoryByDevice(programs, { pages: 0, ...rows });
  const onCards = bare.filter(({ device }) => device !== HOST);
  const spareVram = limits.vram - sum(onCards, ({ total }) => total);
  const pagesOf = ({ device, total, pageBytes }: DeviceMemory): number => {
    if (pageBytes === 0) return Infinity;
    if (device !== HOST)
      return (Math.min((cards.get(device) ?? 0) - total, spareVram / onCards.length) * CARD_CACHE_SHARE) / pageBytes;
    const left = limits.ram - total;
    return (left > 0 ? left * CACHE_SHARE.left : (left + experts) * CACHE_SHARE.all) / pageBytes;
  };
  const longest = Math.floor(Math.min(...bare.map(pagesOf))) * PAGE_TOKENS;
  const least = Math.min(LEAST_CONTEXT, sizes.contextLength);
  const context = request.context ?? Math.max(least, Math.min(longest, sizes.contextLength));
  const held = memoryByDevice(programs, { pages: Math.ceil(context / PAGE_TOKENS), ...rows });
  const ram = sum(held, ({ device, total }) => (device === HOST ? total : 0));
  const vram = sum(held, ({ device, total }) => (device === HOST ? 0 : total));
  const leastRam = ram - experts;
  const full = held.find(({ device, total }) => device !== HOST && total > (cards.get(device) ?? 0));
  const tooMuch = full ? tooMuchOn(full, cards.get(full.device) ?? 0) : vram > limits.vram ? tooMuchOn({ ...sumOf(held), total: vram }, limits.vram) : undefined; // biome-ignore format: one thought a line
  const inMemory = experts === 0 ? 1 : clamp((limits.ram - leastRam) / experts);
  const fits = tooMuch ? 'no' : ram <= limits.ram ? 'memory' : experts > 0 && leastRam <= limits.ram ? 'disk' : 'no';
  return {
    kind: vram === 0 ? 'cpu' : experts > 0 ? 'hybrid' : 'gpu',
    inMemory: fits === 'memory' ? 1 : inMemory,
    fits,
    ram,
    ramLimit: limits.ram,
    vram,
    vramLimit: limits.vram,
    leastRam,
    context,
    kv: sum(held, ({ pageBytes }) => pageBytes) * Math.ceil(context / PAGE_TOKENS),
    gpuLayers: sizes.moeLayers - expertLayersOnHost(programs[0]),
    reason: tooMuch ?? `by the rules ${held.map(heldBy).join(', ')}${fits === 'memory' ? '' : `; ${gigabytes(limits.ram)} of memory are available`}`, // biome-ignore format: one thought a line
  };
}

function heldBy({ device, total }: DeviceMemory): string {
  return `${device === HOST ? 'the memory' : device} holds ${gigabytes(total)}`;
}

function tooMuchOn({ device, weights, buffers, kernels, total }: DeviceMemory, limit: number): string {
  const cache = gigabytes(total - weights - buffers - kernels);
  return `the rules put ${gigabytes(total)} on ${device} (weights ${gigabytes(weights)}, buffers ${gigabytes(buffers + kernels)}, cache ${cache}), ${gigabytes(limit)} of it can be filled`;
}

function sumOf(held: readonly DeviceMemory[]): DeviceMemory {
  const cards = held.filter(({ device }) => device !== HOST);
  const of = (part: 'weights' | 'buffers' | 'kernels' | 'total') => sum(cards, (each) => each[part]);
  return {
    device: 'GPUs',
    weights: of('weights'),
    buffers: of('buffers'),
    kernels: of('kernels'),
    pageBytes: 0,
    total: of('total'),
  };
}

/** Bytes of the routed experts that the processor computes, in any pass. */
function expertsOnHost(programs: readonly Program[]): number {
  const held = new Set<number>();
  for (const { steps } of programs)
    for (const { op, inputs, placement } of steps) {
      if (op !== 'experts' || (placement?.device ?? HOST) !== HOST) continue;
      for (const input of inputs) if (input?.kind === 'weight') held.add(input.weight);
    }
  return sum([...held], (id) => weightBytes(programs[0].weights[id]));
}

function expertLayersOnHost({ steps }: Program): number {
  const there = steps.filter(({ op, placement }) => op === 'experts' && (placement?.device ?? HOST) === HOST);
  return new Set(there.map(({ layer }) => layer)).size;
}

function sum<T>(items: readonly T[], measure: (item: T) => number): number {
  return items.reduce((all, item) => all + measure(item), 0);
}
