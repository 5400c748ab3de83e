/** Turns the scheduler's choice (which sequences, how many rows each) into the buffer of one pass. Decides nothing. */
import type { Batch, BatchSequence, OutputRow } from '../program/batch.ts';
import type { Sequence } from './sequence.ts';

/** Rows of one sequence in a pass: positions [sequence.computedLen, + rows). */
export interface Choice {
  readonly sequence: Sequence;
  readonly rows: number;
}

/** The same, with its place in the batch. */
export interface Work extends Choice {
  /** Index into `batch.outputs` of its first output, and how many are its own. */
  readonly firstOutput: number;
  readonly outputs: number;
}

/** What the scheduler asks to be run. */
export interface Plan {
  readonly batch: Batch;
  readonly work: readonly Work[];
  /** Rows of sequences with more than one token to compute. */
  readonly prefillRows: number;
}

export function assemble(choices: readonly Choice[]): Plan {
  const tokens = new Int32Array(choices.reduce((sum, { rows }) => sum + rows, 0));
  const sequences: BatchSequence[] = [];
  const outputs: OutputRow[] = [];
  const work: Work[] = [];
  let firstRow = 0;
  let prefillRows = 0;
  let wantLogits = false;
  for (const { sequence, rows } of choices) {
    const { computedLen: firstPosition, sampler } = sequence;
    tokens.set(sequence.tokens(firstPosition, firstPosition + rows), firstRow);
    sequences.push({ slot: sequence.slot, firstRow, rows, firstPosition, pages: sequence.pages });
    const count = sequence.outputsFor(rows);
    work.push({ sequence, rows, firstOutput: outputs.length, outputs: count });
    for (let row = firstRow + rows - count; row < firstRow + rows; row++)
      outputs.push({ row, sampling: sampler ? sampler.record(firstPosition + row - firstRow + 1) : null });
    if (count > 0 && sampler === null) wantLogits = true;
    if (sequence.pendingLen > 1) prefillRows += rows;
    firstRow += rows;
  }
  return { batch: { tokens, sequences, outputs, wantLogits }, work, prefillRows };
}
