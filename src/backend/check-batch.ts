/** A batch that would read or write outside what was allocated is refused before anything runs. */
import { TandemError } from '../errors.ts';
import type { Batch } from '../program/batch.ts';
import { PAGE_TOKENS, type Program } from '../program/program.ts';

/** What an executable was prepared for. */
export interface Limits {
  readonly pages: number;
  readonly maxRows: number;
  readonly maxOutputs: number;
}

const SLOTS = 4096;

/** REQUEST_INVALID naming the first rule of Batch that is broken. */
export function checkBatch(batch: Batch, program: Program, limits: Limits): void {
  const { tokens, sequences, outputs } = batch;
  expect(tokens.length > 0, 'a batch has rows', 'it has none');
  expect(tokens.length <= limits.maxRows, `a pass has at most ${limits.maxRows} rows`, `${tokens.length}`);
  expect(outputs.length <= limits.maxOutputs, `a pass has at most ${limits.maxOutputs} outputs`, `${outputs.length}`);
  for (const token of tokens)
    expect(token >= 0 && token < program.vocabSize, `tokens are in [0, ${program.vocabSize})`, `${token}`);
  let next = 0;
  const slots = new Set<number>();
  for (const { slot, firstRow, rows, firstPosition, pages } of sequences) {
    expect(slot >= 0 && slot < SLOTS && !slots.has(slot), `slots are in [0, ${SLOTS}), each once`, `slot ${slot}`);
    slots.add(slot);
    expect(
      firstRow === next && rows > 0,
      'sequences cover the rows in order',
      `rows [${firstRow}, ${firstRow + rows})`,
    );
    next = firstRow + rows;
    const end = firstPosition + rows;
    expect(firstPosition >= 0 && end <= pages.length * PAGE_TOKENS, 'a block table covers its positions', `${end}`);
    for (const page of pages)
      expect(page >= 0 && page < limits.pages, `pages are in [0, ${limits.pages})`, `page ${page}`);
  }
  expect(next === tokens.length, 'every row belongs to a sequence', `${next} of ${tokens.length} do`);
  outputs.forEach(({ row, sampling }, o) => {
    expect(row >= 0 && row < tokens.length, 'outputs are rows of the pass', `row ${row}`);
    expect(o === 0 || row > outputs[o - 1].row, 'outputs ascend by row', `row ${row} follows ${outputs[o - 1]?.row}`);
    if (!sampling) return;
    for (const list of [sampling.penaltyTokens, sampling.biasTokens])
      for (const token of list)
        expect(token >= 0 && token < program.vocabSize, 'penalties and biases name tokens', `token ${token}`);
    const words = Math.ceil(program.vocabSize / 32);
    expect(!sampling.mask || sampling.mask.length >= words, `a mask has ${words} words`, `${sampling.mask?.length}`);
  });
}

function expect(condition: boolean, rule: string, given: string): void {
  if (!condition) throw new TandemError('REQUEST_INVALID', { room: 'backend', rule, given });
}
