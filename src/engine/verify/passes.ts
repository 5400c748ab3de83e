/** One text, cut into passes in the ways that a running engine cuts it; every way gives the logits of every position. */
import type { Executable } from '../../backend/backend.ts';
import type { Batch, BatchSequence } from '../../program/batch.ts';
import { PAGE_TOKENS } from '../../program/program.ts';

/** How the text goes through the model. */
export type Shape =
  /** Passes of so many tokens. */
  | { readonly kind: 'chunks'; readonly size: number }
  /** All at once, between two other sequences of the same pass. */
  | { readonly kind: 'company' }
  /** Its first pages were computed by another sequence. */
  | { readonly kind: 'shared' }
  /** Its first pages were read out, and written back elsewhere. */
  | { readonly kind: 'restored' };

/** Pages that `runShape` needs for a text of `tokens`: its own, twice, and those of two neighbours. */
export function pagesFor(tokens: number): number {
  return 2 * pagesOf(tokens) + 2;
}

/** Most rows of a pass: the text and its neighbours, of at most a page each. */
export function rowsFor(tokens: number): number {
  return tokens + 2 * NEIGHBOUR;
}

/** Rows of each neighbour. */
const NEIGHBOUR = 7;

/** Whether a text is long enough for this shape to differ from running it whole. */
export function applies(shape: Shape, tokens: number): boolean {
  if (shape.kind === 'chunks') return shape.size < tokens;
  return shape.kind === 'company' || tokens > PAGE_TOKENS;
}

/** The batches of a text in passes of `size`. */
export function chunked(ids: readonly number[], size: number): Batch[] {
  const pages = pageList(0, ids.length);
  return starts(ids.length, size).map((first) => {
    const tokens = ids.slice(first, first + size);
    return batchOf([{ tokens, first, pages, slot: 0, wanted: true }]);
  });
}

/** Logits [ids.length, V]. */
export async function runShape(
  executable: Executable,
  ids: readonly number[],
  shape: Shape,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const logits = new Float32Array(ids.length * executable.program.vocabSize);
  const pass = async (batch: Batch, from: number) => {
    signal?.throwIfAborted();
    const result = await executable.run(batch);
    logits.set(result.logits!, from * executable.program.vocabSize);
  };
  if (shape.kind === 'chunks') {
    let from = 0;
    for (const batch of chunked(ids, shape.size)) {
      await pass(batch, from);
      from += batch.tokens.length;
    }
  } else if (shape.kind === 'company') {
    await pass(inCompany(ids), 0);
  } else {
    const own = pageList(0, ids.length);
    const shared = Math.floor((ids.length - 1) / PAGE_TOKENS);
    const split = shared * PAGE_TOKENS;
    await pass(batchOf([{ tokens: ids.slice(0, split), first: 0, pages: own, slot: 0, wanted: true }]), 0);
    const others = pageList(own.length, ids.length);
    if (shape.kind === 'shared') others.set(own.subarray(0, shared));
    else for (let page = 0; page < shared; page++) await copyPage(executable, own[page], others[page]);
    await pass(batchOf([{ tokens: ids.slice(split), first: split, pages: others, slot: 1, wanted: true }]), split);
  }
  return logits;
}

async function copyPage(executable: Executable, from: number, to: number): Promise<void> {
  if (executable.readPage === undefined || executable.writePage === undefined)
    throw new TypeError('the executable cannot move pages');
  await executable.writePage(to, await executable.readPage(from));
}

function inCompany(ids: readonly number[]): Batch {
  const own = pagesOf(ids.length);
  const neighbour = (shift: number) => Array.from({ length: NEIGHBOUR }, (_, i) => ids[(i + shift) % ids.length]);
  return batchOf([
    { tokens: neighbour(1), first: 0, pages: pageList(2 * own, NEIGHBOUR), slot: 1, wanted: false },
    { tokens: ids, first: 0, pages: pageList(0, ids.length), slot: 0, wanted: true },
    { tokens: neighbour(3), first: 0, pages: pageList(2 * own + 1, NEIGHBOUR), slot: 2, wanted: false },
  ]);
}

interface Part {
  readonly tokens: readonly number[];
  /** Position of the first token. */
  readonly first: number;
  readonly pages: Int32Array;
  readonly slot: number;
  /** Whether its logits are. */
  readonly wanted: boolean;
}

function batchOf(parts: readonly Part[]): Batch {
  const sequences: BatchSequence[] = [];
  const outputs: { row: number; sampling: null }[] = [];
  let firstRow = 0;
  for (const { tokens, first, pages, slot, wanted } of parts) {
    sequences.push({ slot, firstRow, rows: tokens.length, firstPosition: first, pages });
    if (wanted) for (let i = 0; i < tokens.length; i++) outputs.push({ row: firstRow + i, sampling: null });
    firstRow += tokens.length;
  }
  return { tokens: Int32Array.from(parts.flatMap(({ tokens }) => tokens)), sequences, outputs, wantLogits: true };
}

function pagesOf(tokens: number): number {
  return Math.ceil(tokens / PAGE_TOKENS);
}

function pageList(first: number, tokens: number): Int32Array {
  return Int32Array.from({ length: pagesOf(tokens) }, (_, page) => first + page);
}

function starts(length: number, size: number): number[] {
  return Array.from({ length: Math.ceil(length / size) }, (_, i) => i * size);
}
