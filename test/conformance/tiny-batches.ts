/** Batches for tests: sequences by their tokens, greedy outputs. */
import { type Batch, GREEDY, type OutputRow, type SamplingRecord } from '../../src/program/batch.ts';

/** Everything off: the largest logit wins. */
export function greedy(position: number, change: Partial<SamplingRecord> = {}): SamplingRecord {
  return { ...GREEDY, position, ...change };
}

export interface Part {
  /** Tokens of this pass. */
  readonly tokens: readonly number[];
  readonly firstPosition?: number;
  readonly pages: readonly number[];
  readonly slot?: number;
  /** Which rows give logits; default: all. */
  readonly outputs?: 'all' | 'last' | 'none';
}

/** One pass over the parts, in order; logits are asked for. */
export function batchOf(parts: readonly Part[], change: Partial<SamplingRecord> = {}): Batch {
  let firstRow = 0;
  const outputs: OutputRow[] = [];
  const sequences = parts.map(({ tokens, firstPosition = 0, pages, slot, outputs: which = 'all' }, index) => {
    const start = firstRow;
    firstRow += tokens.length;
    for (let row = start; row < firstRow; row++)
      if (which === 'all' || (which === 'last' && row === firstRow - 1))
        outputs.push({ row, sampling: greedy(firstPosition + row - start + 1, change) });
    const rows = tokens.length;
    return { slot: slot ?? index, firstRow: start, rows, firstPosition, pages: Int32Array.from(pages) };
  });
  return { tokens: Int32Array.from(parts.flatMap(({ tokens }) => tokens)), sequences, outputs, wantLogits: true };
}
