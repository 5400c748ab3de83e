/**
 * What each device holds of a placed Program. A weight that steps on two devices read lies on both; a layer's cache lies
 * where it is read; buffers are shared per device (program/buffers.ts). Pure arithmetic.
 */
import { TandemError } from '../errors.ts';
import { planBuffers } from '../program/buffers.ts';
import { type Program, pageBytes } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { weightBytes } from './budget.ts';
import { gigabytes } from './fit.ts';
import { gpuWorkBytes, gpuWorksOf } from './gpu-memory.ts';
import { deviceNames, type Machine } from './lower.ts';

/** Bytes. */
export interface DeviceMemory {
  readonly device: string;
  readonly weights: number;
  readonly buffers: number;
  /** Of a GPU: what its kernels take beside that (gpu-memory.ts). */
  readonly kernels: number;
  /** Of one page of 64 tokens, the layers whose cache lies here. */
  readonly pageBytes: number;
  /** Weights, buffers, kernels and the pages asked for. */
  readonly total: number;
}

export interface DeviceMemoryRequest {
  /** 0: what lies there without a cache; kernels are then ready for the longest context of the model. */
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
      const kernels = device === HOST ? 0 : Math.max(...programs.map((program) => kernelsOn(program, device, request)));
      const total = own + buffers + kernels + page * request.pages;
      return { device, weights: own, buffers, kernels, pageBytes: page, total };
    });
}

export interface DeviceMemoryLimits extends DeviceMemoryRequest {
  /** Bytes of all devices beside the processor together; default: what each has. */
  readonly vram?: number;
  /** Experts of the processor may stay on the disk. Default false. */
  readonly expertsOnDisk?: boolean;
}

/** PLACEMENT_IMPOSSIBLE naming the first device whose memory is too small, with the numbers and the rule that puts most there. */
export function checkDeviceMemory(
  placed: Program | readonly Program[],
  machine: Machine,
  request: DeviceMemoryLimits,
): DeviceMemory[] {
  const programs = Array.isArray(placed) ? (placed as readonly Program[]) : [placed as Program];
  const { vram = Infinity, expertsOnDisk = false } = request;
  const all = memoryByDevice(programs, request);
  let others = 0;
  for (const each of all) {
    const { device, total } = each;
    const own = device === machine.device;
    const memory = machine.devices?.find(({ name }) => name === device)?.memory ?? Infinity;
    const needed = total - (own && expertsOnDisk ? sum(expertsOn(programs, device)) : 0);
    if (!own) others += total;
    const limit = own ? memory : Math.min(memory, vram - (others - total));
    if (needed <= limit || !deviceNames(machine).includes(device)) continue;
    const budget =
      limit < memory ? `is within the budget of ${gigabytes(vram)} for GPUs` : `fits its ${gigabytes(memory)}`;
    throw new TandemError('PLACEMENT_IMPOSSIBLE', {
      room: 'placement',
      rule: `what lies on ${device} ${budget}`,
      given: `${most(programs, device)}weights ${gigabytes(each.weights)}, buffers ${gigabytes(each.buffers + each.kernels)}, cache ${gigabytes(each.pageBytes * request.pages)} (${request.pages * programs[0].kv.pageTokens} tokens)`,
      fix: `${fewer(programs, device, needed - limit)}or take a shorter context`,
    });
  }
  return all;
}

/** Bytes of the routed experts that lie on a device, by layer in order. */
function expertsOn(programs: readonly Program[], device: string): number[] {
  const layers = new Map<string, number>();
  for (const { steps, weights } of programs)
    for (const { op, name, inputs, placement } of steps) {
      if (op !== 'experts' || (placement?.device ?? 'cpu') !== device) continue;
      const held = inputs.map((input) => (input?.kind === 'weight' ? weightBytes(weights[input.weight]) : 0));
      layers.set(name, sum(held));
    }
  return [...layers.values()];
}

/** The rule that puts most on a device, with its bytes: `my.yaml:3 puts 27.2 GB there; `. */
function most(programs: readonly Program[], device: string): string {
  const rules = new Map<string, Set<number>>();
  for (const { steps } of programs)
    for (const { inputs, placement } of steps) {
      if (placement?.origin === undefined || placement.device !== device) continue;
      const held = setOf(rules, placement.origin);
      for (const input of inputs) if (input?.kind === 'weight') held.add(input.weight);
    }
  const [{ weights }] = programs;
  const [first] = [...rules]
    .map(([origin, held]) => ({ origin, bytes: sum([...held].map((id) => weightBytes(weights[id]))) }))
    .sort((a, b) => b.bytes - a.bytes);
  return first ? `${first.origin} puts ${gigabytes(first.bytes)} there; ` : '';
}

/** What fits instead, where `excess` bytes are too many. */
function fewer(programs: readonly Program[], device: string, excess: number): string {
  const layers = expertsOn(programs, device);
  let room = sum(layers) - excess;
  if (layers.length === 0 || room < 0) return 'place fewer steps there, ';
  const left = layers.findIndex((bytes) => (room -= bytes) < 0);
  return `place ${left === 0 ? 'no experts' : `the experts of ${left} instead of ${layers.length} layers`} there, `;
}

function sum(values: readonly number[]): number {
  return values.reduce((all, value) => all + value, 0);
}

function buffersOn(program: Program, device: string, { maxRows, maxOutputs }: DeviceMemoryRequest): number {
  const only = program.steps[0]?.placement?.device ?? 'cpu';
  return planBuffers(program).slots.reduce(
    (sum, slot) =>
      (slot.device ?? only) === device ? sum + 4 * slot.columns * (slot.rows === 'T' ? maxRows : maxOutputs) : sum,
    0,
  );
}

function kernelsOn(program: Program, device: string, { pages, maxRows, maxOutputs }: DeviceMemoryRequest): number {
  const { contextLength, kv } = program;
  const context = pages === 0 ? contextLength : Math.min(contextLength, pages * kv.pageTokens);
  return gpuWorkBytes(gpuWorksOf(program, device), { maxRows, maxOutputs, context }, kv.pageTokens);
}

function setOf(sets: Map<string, Set<number>>, device: string): Set<number> {
  const found = sets.get(device) ?? new Set<number>();
  sets.set(device, found);
  return found;
}

function order(device: string): number {
  return device === 'cpu' ? 0 : 1;
}
