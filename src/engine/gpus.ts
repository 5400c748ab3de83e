/** What `load` does about GPUs: how much cache they hold, what is said of those in use and of others, and when the CPU takes over. */
import type { GpuList } from '../backend/native/binding.ts';
import { knownGpus } from '../backend/native/gpus.ts';
import { TandemError } from '../errors.ts';
import { CARD_CACHE_SHARE } from '../placement/card-room.ts';
import { memoryByDevice } from '../placement/device-memory.ts';
import { usableOf } from '../placement/fit.ts';
import type { Machine } from '../placement/lower.ts';
import { type Program, pageBytes } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { chooseMemory, type MemoryChoice, type MemoryRequest } from './memory.ts';

export function usesGpus({ steps }: Program): boolean {
  return steps.some(({ placement }) => (placement?.device ?? HOST) !== HOST);
}

/** The cards that compute steps, for whoever keeps what they computed: another model of a card rounds otherwise. */
export function cardsOf({ steps }: Program, { gpus }: Pick<GpuList, 'gpus'> = knownGpus()): string {
  const used = new Set(steps.map(({ placement }) => placement?.device ?? HOST));
  const cards = gpus.filter(({ device }) => used.has(device));
  return cards.map(({ device, name, capability }) => `${device} ${name} ${capability}`).join(', ');
}

/** The same machine, its processor alone. */
export function withoutGpus({ devices: _, ...machine }: Machine): Machine {
  return machine;
}

/** Sentences for people. */
export function gpuWarnings(placed: Program, { refused = {} }: Machine): string[] {
  const others = Object.entries(refused).map(([device, why]) => `${device} is not used: ${why}`);
  return usesGpus(placed) ? [...others, UNTRIED] : others;
}

const UNTRIED = 'GPU kernels are tested over an emulation of the thread grid and have not run on a card yet';
const CHECKED =
  'GPU kernels are new: this card gave what the reference gives (gpu check), and their speed is not known';

/** What becomes of a warning once the card of this machine was checked. */
export function checkedWarning(warning: string): string {
  return warning === UNTRIED ? CHECKED : warning;
}

/** What the CPU may make good, where GPUs were not asked for: all but what the user or the files did. */
export function canGiveWay(error: unknown): boolean {
  return error instanceof TandemError && GIVE_WAY.has(error.code);
}

const GIVE_WAY: ReadonlySet<string> = new Set([
  'NATIVE_FAILED',
  'OUT_OF_MEMORY',
  'FORMAT_UNSUPPORTED',
  'PLACEMENT_IMPOSSIBLE',
]);

export function fellBack(error: Error): string {
  return `the CPU computes everything, since a GPU could not: ${error.message.replace(/^\[\w+\] /, '')}`;
}

/**
 * As `chooseMemory`, where the cache lies on the processor. Where GPUs hold it, they say how large it may be; a context that
 * was asked for and does not fit is refused by the device, with numbers.
 */
export function memoryFor(
  placed: Program,
  machine: Machine,
  request: MemoryRequest & { readonly vram?: number; readonly reserved?: ReadonlyMap<string, number> },
): MemoryChoice {
  if (request.kvBytes !== undefined || !usesGpus(placed)) return chooseMemory(placed, request);
  const { maxRows, maxOutputs, available, vram = Infinity, reserved } = request;
  const all = memoryByDevice(placed, { pages: 0, maxRows, maxOutputs });
  const taken = all.reduce((sum, { device, total }) => sum + (device === HOST ? 0 : total), 0);
  const cards = all.filter(({ device, pageBytes: page }) => device !== HOST && page > 0);
  const pages = all.flatMap(({ device, total, pageBytes: page }) => {
    if (page === 0) return [];
    if (device === HOST) return [Math.max(available - total, available / 8) / 2 / page];
    const memory = machine.devices?.find(({ name }) => name === device)?.memory ?? Infinity;
    const free = usableOf(memory) - total - (reserved?.get(device) ?? 0);
    return [(Math.min(free, (vram - taken) / cards.length) * CARD_CACHE_SHARE) / page];
  });
  const most = Math.max(1, Math.floor(Math.min(...pages)));
  return chooseMemory(placed, { ...request, kvBytes: most * pageBytes(placed.kv) });
}
