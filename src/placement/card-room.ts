/** What is left on each card beside what a placed Program takes there. Pure arithmetic. */
import type { Program } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { type DeviceMemoryRequest, memoryByDevice } from './device-memory.ts';
import type { CardRoom } from './expert-sharing.ts';
import { usableOf } from './fit.ts';
import type { Machine } from './lower.ts';

export function cardRoom(
  placed: Program,
  machine: Machine,
  limits: DeviceMemoryRequest & { readonly vram?: number },
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

/** Of what weights and buffers leave on a card, the most that the cache takes where nothing else was asked for. */
export const CARD_CACHE_SHARE = 0.8;
/** Full contexts that a cache keeps room for, where memory is plenty. */
export const FULL_CONTEXTS = 8;

/** Pages that a cache on cards gets, about as `load` decides it. */
export function cardPages(
  placed: Program,
  machine: Machine,
  { context, ...rows }: { readonly context: number; readonly maxRows: number; readonly maxOutputs: number },
): number {
  const one = Math.ceil(context / placed.kv.pageTokens);
  const pages = memoryByDevice(placed, { pages: 0, ...rows }).map(({ device, total, pageBytes }) => {
    if (device === HOST || pageBytes === 0) return Infinity;
    const memory = machine.devices?.find(({ name }) => name === device)?.memory ?? Infinity;
    return Math.floor(((usableOf(memory) - total) * CARD_CACHE_SHARE) / pageBytes);
  });
  return Math.max(one, Math.min(FULL_CONTEXTS * one, ...pages));
}
