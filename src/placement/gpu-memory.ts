/**
 * What a GPU holds of a model beside weights, cache and the values of a pass: scratch memory of kernels, what a pass is told, and
 * what routers chose. As native/cuda takes it (RowChunks, RoundedRows, PartedRows, ExpandedMla, ExpertKernels, PassHeader;
 * test/gpu/memory.test.ts compares), so that a plan needs no card. Bytes.
 */
import type { Program, Step } from '../program/program.ts';

/** Most of a pass, and most positions of a sequence. */
export interface PassLimits {
  readonly maxRows: number;
  readonly maxOutputs: number;
  readonly context: number;
}

/** What a step wants, whatever the limits. */
export type GpuWork =
  /** `tiles`: rows from which x is rounded first. `outputs`: x has the rows of outputs. */
  | { readonly op: 'linear'; readonly columns: number; readonly tiles: number; readonly outputs: boolean }
  /** Bytes of a row and part of the context. */
  | { readonly op: 'attention'; readonly part: number }
  /** Of a row; of a row and part; of an expanded position: latent, rope key, rounded latent, keys and values; of a turned W_UK. */
  | {
      readonly op: 'mla';
      readonly row: number;
      readonly part: number;
      readonly position: readonly number[];
      readonly turned: number;
      readonly heads: number;
      /** Rows of a sequence that expand its context; 0: none do. */
      readonly tiles: number;
    }
  /** `copied`: ids and weights are columns of wider values. */
  | {
      readonly op: 'experts';
      readonly chosen: number;
      readonly experts: number;
      readonly inner: number;
      readonly hidden: number;
      readonly copied: boolean;
    }
  | { readonly op: 'sample'; readonly vocabulary: number }
  | { readonly op: 'router'; readonly chosen: number };

/** Scratch memory that rows are cut into pieces for. */
const SCRATCH = 128 * 2 ** 20;
/** Rows of x that products on tiles take at once: chunks of them are whole tiles. */
const TILE = 128;
/** Of attention: positions of a part at least, parts at most. */
const PART = { least: 256, most: 64 };
/** Positions of a context that are expanded at once: a multiple of, at most. */
const EXPANDED = { step: 64, most: 1024 };
/** Query rows of a sequence from which a GPU's attention goes over tiles, where nothing is placed yet. */
const TILES = 128;
/** Visits of experts at once: blocks of a grid. */
const VISITS = 65535;
const PAGES = 2 ** 24;

/** Bytes for these steps on one GPU. */
export function gpuWorkBytes(works: readonly GpuWork[], limits: PassLimits, pageTokens: number): number {
  const { maxRows, maxOutputs, context } = limits;
  const scratch = Math.max(0, ...works.map((work) => scratchOf(work, limits)));
  const ids = works.reduce((sum, work) => sum + (work.op === 'router' ? work.chosen * maxRows * 4 : 0), 0);
  const pages = Math.min(maxRows * (Math.floor(context / pageTokens) + 1), PAGES);
  const told = 4 * (6 * maxRows + maxOutputs) + 6 * pages;
  return scratch + ids + told;
}

function scratchOf(work: GpuWork, limits: PassLimits): number {
  const { maxRows, maxOutputs } = limits;
  switch (work.op) {
    case 'linear': {
      const most = work.outputs ? maxOutputs : maxRows;
      const row = roundedBytes(work.columns);
      return most < work.tiles ? 0 : padded(Math.min(Math.max(Math.floor(SCRATCH / row / TILE), 1) * TILE, most) * row);
    }
    case 'attention':
      return partedBytes(0, work.part, limits);
    case 'mla':
      return Math.max(partedBytes(work.row, work.part, limits), work.tiles > 0 ? expandedBytes(work, limits) : 0);
    case 'experts':
      return expertsScratch(work, maxRows, false) + (work.copied ? 2 * padded(maxRows * work.chosen * 4) : 0);
    case 'sample':
      return maxOutputs * work.vocabulary * 4;
    case 'router':
      return 0;
  }
}

/** Of an `experts` step over so many rows; `accumulates`: in groups, as they stream. */
export function expertsScratch(
  { chosen, experts, inner, hidden }: Pick<GpuWork & { op: 'experts' }, 'chosen' | 'experts' | 'inner' | 'hidden'>,
  most: number,
  accumulates: boolean,
): number {
  const rounded = Math.max(roundedBytes(hidden), chosen * roundedBytes(inner));
  const row = chosen * ((2 * inner + hidden) * 4 + 4) + rounded + (accumulates ? hidden * 4 : 0);
  const rows = Math.max(1, Math.min(Math.floor(SCRATCH / row), Math.floor(VISITS / chosen), most));
  const visits = rows * chosen;
  const products = 2 * padded(visits * inner * 4) + padded(visits * hidden * 4);
  const order = padded(visits * 4) + padded((experts + 1) * 4) + padded((Math.ceil(visits / 128) + experts) * 8) + 256;
  return products + order + padded(rows * rounded) + (accumulates ? padded(rows * hidden * 4) : 0);
}

/** Pieces of rows with 1, 2, 4 … parts of the context each. */
function partedBytes(row: number, part: number, { maxRows, context }: PassLimits): number {
  const length = Math.max(PART.least, Math.ceil(Math.ceil(context / PART.most) / 64) * 64);
  const most = Math.ceil(context / length);
  let bytes = 0;
  for (let parts = 1; ; parts *= 2) {
    const each = row + parts * part;
    bytes = Math.max(bytes, each * Math.min(Math.max(Math.floor(SCRATCH / each), 1), maxRows));
    if (!(parts < most)) return bytes; // also of a context without end
  }
}

function expandedBytes({ position, turned, heads }: GpuWork & { op: 'mla' }, { maxRows, context }: PassLimits): number {
  const { step } = EXPANDED;
  const each = position.reduce((sum, bytes) => sum + bytes, 0);
  const most = Math.min(Math.max(Math.ceil(context / step), 1) * step, EXPANDED.most);
  const positions = Math.min(Math.max(Math.floor(SCRATCH / each / step) * step, step), most);
  const chunk = position.reduce((sum, bytes) => sum + padded(positions * bytes), 0);
  return padded(turned) + chunk + padded(maxRows * heads * 8);
}

/** Of a row of x that tiles multiply: bf16, whole steps of 128 columns. */
function roundedBytes(columns: number): number {
  return Math.ceil(columns / 128) * 256;
}

function padded(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}

/** Works of the steps on a device; `undefined`: of all, where nothing is placed yet. Equal ones once, routers each. */
export function gpuWorksOf(program: Program, device?: string): GpuWork[] {
  const works = new Map<string, GpuWork>();
  program.steps.forEach((step, index) => {
    if (device !== undefined && step.placement?.device !== device) return;
    const work = workOf(program, step);
    if (work !== undefined) works.set(work.op === 'router' ? `router ${index}` : JSON.stringify(work), work);
  });
  return [...works.values()];
}

function workOf(program: Program, { op, inputs, attributes, placement }: Step): GpuWork | undefined {
  const of = (name: string) => Number(attributes[name] ?? 0);
  const shapeOf = (operand: number): readonly number[] => {
    const input = inputs[operand];
    return input?.kind === 'weight' ? program.weights[input.weight].shape : [];
  };
  const first = inputs[0];
  if (op === 'linear' && first?.kind === 'value') {
    const tiles = placement ? placement.tiles : TILES;
    const outputs = program.values[first.value].rows === 'O';
    return tiles === undefined ? undefined : { op, columns: first.columns, tiles, outputs };
  }
  if (op === 'attention') return { op, part: of('heads') * (of('valueSize') + 2) * 4 };
  if (op === 'sample') return { op, vocabulary: program.vocabSize };
  if (op === 'router') return { op, chosen: of('topk') };
  if (op === 'mla') {
    const [heads, nope, rope, latent, value] = ['heads', 'nope', 'rope', 'latent', 'value'].map(of);
    const [width, tiles] = [nope + rope, placement ? (placement.tiles ?? 0) : TILES];
    const even = [nope, rope, value].every((size) => size % 2 === 0);
    return {
      op,
      row: heads * (2 * latent + rope) * 4,
      part: heads * (latent + 2) * 4,
      position: [latent * 4, rope * 2, roundedBytes(latent), heads * nope * 2, heads * value * 2],
      turned: inputs[1] ? 0 : heads * nope * latent * 2,
      heads,
      tiles: even && width <= 192 && value <= 128 ? tiles : 0,
    };
  }
  const ids = inputs[1];
  if (op !== 'experts' || ids?.kind !== 'value') return undefined;
  const [experts, inner] = shapeOf(3);
  const [, hidden] = shapeOf(5);
  const copied = ids.columns !== program.values[ids.value].columns;
  return { op, chosen: ids.columns, experts, inner, hidden, copied };
}
