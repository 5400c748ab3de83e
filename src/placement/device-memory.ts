/**
 * What each device holds of a placed Program. A weight that steps on two devices read lies on both; a layer's cache lies
 * where it is read; buffers are shared per device (program/buffers.ts). Pure arithmetic.
 */
import { TandemError } from '../errors.ts';
import { planBuffers } from '../program/buffers.ts';
import { type Program, pageBytes } from '../program/program.ts';
import { weightBytes } from './budget.ts';
import { deviceNames, type Machine } from './lower.ts';

/** Bytes. */
export interface DeviceMemory {
  readonly device: string;
  readonly weights: number;
  readonly buffers: number;
  /** Of one page of 64 tokens, the layers whose cache lies here. */
  readonly pageBytes: number;
  /** Weights, buffers and the pages asked for. */
  readonly total: number;
}

export interface DeviceMemoryRequest {
  readonly pages: number;
  /** Most rows, most output rows of a pass. */
  readonly maxRows: number;
  readonly maxOutputs: number;
}

/** Of the devices that the Programs use, the CPU first. Several Programs: lowerings of one, which share weights and cache. */
export function memoryByDevice(placed: Program | readonly Program[], request: DeviceMemoryRequest): DeviceMemory[] {
  const programs = Array.isArray(placed) ? (placed as readonly Program[]) : [placed as Program];
  const [first] = programs;
  const weights = new Map<string, Set<number>>();
  const caches = new Map<string, Set<number>>();
  for (const { steps } of programs)
    for (const { inputs, attributes, placement } of steps) {
      const device = placement?.device ?? 'cpu';
      const held = setOf(weights, device);
      for (const input of inputs) if (input?.kind === 'weight') held.add(input.weight);
      if (attributes.cache !== undefined) setOf(caches, device).add(Number(attributes.cache));
    }
  return [...weights.keys()]
    .sort((a, b) => order(a) - order(b) || a.localeCompare(b))
    .map((device) => {
      const own = [...setOf(weights, device)].reduce((sum, id) => sum + weightBytes(first.weights[id]), 0);
      const layers = [...setOf(caches, device)].map((cache) => first.kv.layers[cache]);
      const page = pageBytes({ ...first.kv, layers });
      const buffers = Math.max(...programs.map((program) => buffersOn(program, device, request)));
      return { device, weights: own, buffers, pageBytes: page, total: own + buffers + page * request.pages };
    });
}

/** PLACEMENT_IMPOSSIBLE naming the first device whose memory is too small, with the numbers. */
export function checkDeviceMemory(
  placed: Program | readonly Program[],
  machine: Machine,
  request: DeviceMemoryRequest,
): DeviceMemory[] {
  const all = memoryByDevice(placed, request);
  for (const { device, weights, buffers, pageBytes: page, total } of all) {
    const memory = machine.devices?.find(({ name }) => name === device)?.memory;
    if (!deviceNames(machine).includes(device) || memory === undefined || total <= memory) continue;
    throw new TandemError('PLACEMENT_IMPOSSIBLE', {
      room: 'placement',
      rule: `what lies on ${device} fits its ${gigabytes(memory)}`,
      given: `weights ${gigabytes(weights)}, buffers ${gigabytes(buffers)}, cache ${gigabytes(page * request.pages)}`,
      fix: 'place fewer steps there, or take a shorter context',
    });
  }
  return all;
}

function buffersOn(program: Program, device: string, { maxRows, maxOutputs }: DeviceMemoryRequest): number {
  const only = program.steps[0]?.placement?.device ?? 'cpu';
  return planBuffers(program).slots.reduce(
    (sum, slot) =>
      (slot.device ?? only) === device ? sum + 4 * slot.columns * (slot.rows === 'T' ? maxRows : maxOutputs) : sum,
    0,
  );
}

function setOf(sets: Map<string, Set<number>>, device: string): Set<number> {
  const found = sets.get(device) ?? new Set<number>();
  sets.set(device, found);
  return found;
}

function order(device: string): number {
  return device === 'cpu' ? 0 : 1;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toPrecision(3)} GB`;
}
