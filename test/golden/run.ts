/** Runs token ids through a backend and compares logits. */
import type { Backend } from '../../src/backend/backend.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { buildProgram } from '../../src/models/index.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower, type Machine } from '../../src/placement/lower.ts';
import type { Batch } from '../../src/program/batch.ts';
import { type KvType, PAGE_TOKENS, type Program } from '../../src/program/program.ts';
import { validateProgram } from '../../src/program/validate.ts';

/** One sequence from position 0, all of whose logits are wanted. */
export function wholeBatch(ids: readonly number[]): Batch {
  const pages = Int32Array.from({ length: Math.ceil(ids.length / PAGE_TOKENS) }, (_, page) => page);
  return {
    tokens: Int32Array.from(ids),
    sequences: [{ slot: 0, firstRow: 0, rows: ids.length, firstPosition: 0, pages }],
    outputs: ids.map((_, row) => ({ row, sampling: null })),
    wantLogits: true,
  };
}

export interface RunOptions {
  readonly kvType?: KvType;
  /** Default f32: activations are not rounded. */
  readonly activations?: 'rounded' | 'f32';
  /** Default: one without tiles. */
  readonly machine?: Machine;
  /** Instruction set of the native backend. */
  readonly isa?: string;
}

/** The checkpoint's Program, placed and checked. */
export async function placedProgram(checkpoint: Checkpoint, options: RunOptions = {}): Promise<Program> {
  const { kvType = 'f32', activations = 'f32', machine = { device: 'cpu' } } = options;
  const { program } = await buildProgram(checkpoint, { kvType });
  return validateProgram(lower(program, machine, { activations }), OPS);
}

/** Logits [Σ T, V] of several token sequences, each from an empty cache, one after the other. */
export async function logitsOf(
  backend: Backend,
  checkpoint: Checkpoint,
  sequences: readonly (readonly number[])[],
  options: RunOptions = {},
): Promise<Float32Array> {
  const program = await placedProgram(checkpoint, options);
  const rows = Math.max(...sequences.map((ids) => ids.length));
  const { isa } = options;
  const pages = Math.ceil(rows / PAGE_TOKENS);
  await using executable = await backend.prepare(program, checkpoint, { pages, maxRows: rows, maxOutputs: rows, isa });
  const parts: Float32Array[] = [];
  for (const ids of sequences) parts.push((await executable.run(wholeBatch(ids))).logits!);
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Normalized mean square error: Σ(a − b)² / Σ b². NaN anywhere makes it NaN. */
export function nmse(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.NaN;
  let [error, size] = [0, 0];
  for (let i = 0; i < actual.length; i++) {
    error += (actual[i] - expected[i]) ** 2;
    size += expected[i] ** 2;
  }
  return error / size;
}
