/** What the attention suites share: contexts of sequences, batches cut in pieces, outputs compared bit for bit. */
import { expect } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { type GivenValue, type OpCase, runOp } from './harness.ts';

export interface Piece {
  readonly rows: number;
  readonly firstPosition: number;
}

/** Positions that the pieces reach, all together. */
export function positionsOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { rows, firstPosition }) => sum + rows + firstPosition, 0);
}

function sliceRows(given: GivenValue, start: number, end: number): GivenValue {
  return { ...given, rows: end - start, data: given.data.slice(start * given.columns, end * given.columns) };
}

/** The case with one of its sequences only, and of that only rows [start, end). */
export function pieceOf(test: OpCase, index: number, start: number, end: number): OpCase {
  const sequences = test.sequences!;
  const { firstPosition } = sequences[index];
  const firstRow = sequences.slice(0, index).reduce((sum, { rows }) => sum + rows, 0);
  const firstContext = positionsOf(sequences.slice(0, index));
  const [queries, ...weights] = test.inputs;
  const context = test.context!.inputs.map((given) =>
    sliceRows(given, firstContext, firstContext + firstPosition + end),
  ) as [GivenValue, GivenValue];
  return {
    ...test,
    inputs: [sliceRows(queries as GivenValue, firstRow + start, firstRow + end), ...weights],
    sequences: [{ rows: end - start, firstPosition: firstPosition + start }],
    context: { ...test.context!, inputs: context },
  };
}

async function bits(test: OpCase, isa: Isa, threads: number): Promise<Int32Array> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const [{ data }] = await runOp(nativeBackend(), test, { isa, threads });
  return new Int32Array(data.buffer, data.byteOffset, data.length);
}

/**
 * The exactness rule: the numbers of a row are the same bits whatever the number of threads, whoever else is in the batch,
 * however its sequence is cut into passes and wherever its pages lie (the harness deals them out anew for every batch).
 */
export async function expectSameBits(test: OpCase, isa: Isa, chunks: readonly number[]): Promise<void> {
  const whole = await bits(test, isa, 1);
  const sequences = test.sequences!;
  const columns = whole.length / sequences.reduce((sum, { rows }) => sum + rows, 0);
  for (const threads of [2, 3]) expect(await bits(test, isa, threads), `${threads} threads`).toEqual(whole);
  let firstRow = 0;
  for (let s = 0; s < sequences.length; s++) {
    const { rows } = sequences[s];
    for (const chunk of [rows, ...chunks]) {
      for (let start = 0; start < rows; start += chunk) {
        const end = Math.min(rows, start + chunk);
        const part = await bits(pieceOf(test, s, start, end), isa, 2);
        const expected = whole.subarray((firstRow + start) * columns, (firstRow + end) * columns);
        expect(part, `sequence ${s}, rows [${start}, ${end})`).toEqual(expected);
      }
    }
    firstRow += rows;
  }
}
