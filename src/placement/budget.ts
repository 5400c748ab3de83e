/**
 * How much memory a Program takes, and how many KV pages fit. Pure arithmetic over shapes: nothing is allocated, nothing
 * is asked of the machine. Kernels' own scratch is not counted; it is some megabytes a thread.
 */
import { TandemError } from '../errors.ts';
import { rowBytes } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { SCALE_BYTES } from '../formats/quants/scales.ts';
import { planBuffers } from '../program/buffers.ts';
import { type Program, pageBytes } from '../program/program.ts';
import type { Weight } from '../program/tensor.ts';

export interface MemoryRequest {
  /** Tokens that one sequence may reach. */
  readonly context: number;
  /** Sequences that may reach it at once; default 1. */
  readonly sequences?: number;
  /** Most rows, most output rows of a pass. */
  readonly maxRows: number;
  readonly maxOutputs: number;
  /** Bytes for everything; default: no limit. */
  readonly memory?: number;
  /** Bytes for the KV cache alone; default: no limit. */
  readonly kvMemory?: number;
}

/** All sizes in bytes. */
export interface MemoryPlan {
  readonly weights: number;
  readonly buffers: number;
  readonly pageBytes: number;
  readonly pages: number;
  readonly kv: number;
  readonly total: number;
}

/** Bytes of a weight with its scales. */
export function weightBytes(weight: Weight): number {
  const format = quantFormat(weight.format);
  const columns = weight.shape[weight.shape.length - 1];
  const rows = weight.shape.slice(0, -1).reduce((product, length) => product * length, 1);
  const block = format.scaleBlock;
  const matrices = weight.shape.length === 3 ? weight.shape[0] : 1;
  const scales = block
    ? Math.ceil(rows / matrices / block.rows) * Math.ceil(columns / block.columns) * SCALE_BYTES[block.type]
    : 0;
  return rows * rowBytes(format, columns) + scales * matrices;
}

/** Bytes of the values of a pass, shared as `planBuffers` says. */
export function bufferBytes(program: Program, maxRows: number, maxOutputs: number): number {
  let total = 0;
  for (const slot of planBuffers(program).slots) total += (slot.rows === 'T' ? maxRows : maxOutputs) * slot.columns * 4;
  return total;
}

/**
 * Pages for the request, fewer where a limit asks for it, but always enough for one sequence.
 * REQUEST_INVALID for a context that the model does not have, PLACEMENT_IMPOSSIBLE where the limits are too small.
 */
export function planMemory(program: Program, request: MemoryRequest): MemoryPlan {
  const { context, sequences = 1, maxRows, maxOutputs } = request;
  if (!Number.isInteger(context) || context < 1 || context > program.contextLength) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'placement',
      rule: `the context is 1 to ${program.contextLength} tokens`,
      given: `${context} were asked for`,
    });
  }
  const weights = program.weights.reduce((sum, weight) => sum + weightBytes(weight), 0);
  const buffers = bufferBytes(program, maxRows, maxOutputs);
  const page = pageBytes(program.kv);
  const { pageTokens } = program.kv;
  const needed = Math.ceil(context / pageTokens);
  const limit = Math.min(request.kvMemory ?? Infinity, (request.memory ?? Infinity) - weights - buffers);
  const fitting = Math.max(0, Math.floor(limit / page));
  if (fitting < needed) {
    const whole = request.memory !== undefined && limit === request.memory - weights - buffers;
    const budget = whole ? `memory of ${size(request.memory!)}` : `a KV budget of ${size(request.kvMemory!)}`;
    const parts = whole ? `weights take ${size(weights)}, buffers ${size(buffers)}, ` : '';
    const tokens = Math.min(fitting * pageTokens, program.contextLength);
    throw new TandemError('PLACEMENT_IMPOSSIBLE', {
      room: 'placement',
      rule: `one sequence of ${context} tokens fits the memory`,
      given: `${budget}: ${parts}the KV cache of ${context} tokens ${size(needed * page)} (${size(page)} per ${pageTokens} tokens)`,
      fix: `${whole ? 'give more memory' : 'raise the KV budget'}${tokens > 0 ? `, or take a context of at most ${tokens} tokens` : ''}`,
    });
  }
  const pages = Math.min(needed * sequences, fitting);
  return { weights, buffers, pageBytes: page, pages, kv: pages * page, total: weights + buffers + pages * page };
}

/** Bytes for people, in binary units. */
function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const unit = Math.min(Math.max(Math.floor(Math.log2(bytes) / 10), 0), units.length - 1);
  return `${unit === 0 ? bytes : (bytes / 1024 ** unit).toFixed(1)} ${units[unit]}`;
}
