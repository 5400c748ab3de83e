/**
 * The passes in which kinds of steps are checked: one row, a row each of a few sequences, some rows of a prompt, so many that
 * tiles are taken, and, of matrices alone, so many that these are large; all behind a history that fills more than one part of the
 * context (kernels split it).
 */
import { type Batch, type BatchSequence, GREEDY, type OutputRow, type SamplingRecord } from '../../program/batch.ts';
import { PAGE_TOKENS, type Program, type Step } from '../../program/program.ts';
import type { Limits } from '../check-batch.ts';

export interface CheckPass {
  /** For people: `3 sequences of a row`. */
  readonly name: string;
  readonly batch: Batch;
  /** Only steps of whose tiles so many rows take the large ones; absent: all. */
  readonly large?: boolean;
}

export interface CheckPasses {
  /** Only what appends to the cache runs in these, before all others. */
  readonly history: readonly Batch[];
  readonly judged: readonly CheckPass[];
  /** Pages that they use, [0, pages). */
  readonly pages: number;
}

/** Rows in which prompts are read where tiles are not reached. */
const SOME = 7;
/** Position at which the long prompt begins: inside a page, and no multiple of anything. */
const OFFSET = 3;
/** Rows beyond those from which tiles are taken: a second tile that is not full. */
const BEYOND = 9;
/** Native splits a context into at most 64 parts of at least 256 positions (launch_attention.cc); a few more than one. */
const PARTS = 64;
const LEAST_PART = 256;
const PAST_PART = 44;

/** Rows of x and of a matrix that a large tile has (native/cuda/kernels/shapes.h: small_tiles). */
const LARGE_TILE = { rows: 128, columns: 256 };

/** Rows from which a product takes large tiles: as many as there are multiprocessors. Undefined: never, it has none. */
export function largeTilesFrom(step: Step, { weights }: Program, multiprocessors: number): number | undefined {
  const [, weight] = step.inputs;
  const from = step.placement?.tiles;
  if (step.op !== 'linear' || from === undefined || weight?.kind !== 'weight') return undefined;
  const [columns] = weights[weight.weight].shape;
  if (columns <= LARGE_TILE.rows) return undefined;
  const tiles = Math.ceil(multiprocessors / Math.ceil(columns / LARGE_TILE.columns));
  return Math.max(from, (tiles - 1) * LARGE_TILE.rows + 1);
}

/** `tiles`: rows from which steps take their tiles; `large`: rows from which these are large. */
export function checkPasses(
  program: Program,
  limits: Limits,
  tiles: readonly number[],
  large: readonly number[] = [],
): CheckPasses {
  const context = Math.min(program.contextLength, limits.pages * PAGE_TOKENS);
  const part = Math.max(LEAST_PART, Math.ceil(context / PARTS));
  const history = Math.max(0, Math.min(part + PAST_PART, context - SOME));
  const room = Math.min(limits.maxRows, context - OFFSET);
  const reached = Math.max(0, ...tiles.filter((rows) => rows > SOME && rows <= room));
  const many = Math.min(room, reached + BEYOND);
  const most = Math.max(0, ...large.filter((rows) => rows > many && rows <= room));
  const few = Math.max(1, Math.min(3, limits.maxRows, context - history));
  const some = Math.max(1, Math.min(SOME, limits.maxRows, context - history));
  const pages = Math.max(
    1,
    Math.ceil(Math.max(history + SOME, reached > 0 ? OFFSET + Math.max(many, most) : 0) / PAGE_TOKENS),
  );
  const make = (parts: readonly (readonly [rows: number, first: number])[]) => batchOf(program, limits, pages, parts);
  const judged: CheckPass[] = [
    { name: '1 row', batch: make([[1, history]]) },
    { name: `${few} sequences of a row`, batch: make(Array.from({ length: few }, (_, i) => [1, history + i])) },
  ];
  if (some > 2) judged.push({ name: `${some} rows`, batch: make([[some - 1, history], [1, history + some - 1]]) }); // biome-ignore format: a pair each
  if (reached > 0) judged.push({ name: `${many} rows`, batch: make([[many, OFFSET]]) });
  if (most > 0) judged.push({ name: `${most} rows`, batch: make([[most, OFFSET]]), large: true });
  const before: Batch[] = [];
  for (let first = 0; first < history; first += limits.maxRows)
    before.push(make([[Math.min(limits.maxRows, history - first), first]]));
  return { history: before, judged, pages };
}

/** All sequences have the same pages, in falling order, and no two of them a position in common. */
function batchOf(
  { vocabSize }: Program,
  { maxOutputs, pages: all }: Limits,
  pages: number,
  parts: readonly (readonly [rows: number, first: number])[],
): Batch {
  const table = Int32Array.from({ length: Math.min(pages, all) }, (_, i, last = Math.min(pages, all) - 1) => last - i);
  let total = 0;
  const sequences = parts.map(([rows, firstPosition], slot): BatchSequence => {
    const firstRow = total;
    total += rows;
    return { slot, firstRow, rows, firstPosition, pages: table };
  });
  // Every token of a small vocabulary, its first and its last of a large one.
  const tokens = Int32Array.from({ length: total }, (_, row) =>
    row % 2 ? vocabSize - 1 - ((row * 7) % vocabSize) : (row * 5) % vocabSize,
  );
  const count = Math.min(total, maxOutputs);
  const outputs = Array.from(
    { length: count },
    (_, o): OutputRow => ({ row: total - count + o, sampling: recordOf(o) }),
  );
  return { tokens, sequences, outputs, wantLogits: false };
}

/** The likeliest, a draw from all, and one from a few, by turns. */
function recordOf(output: number): SamplingRecord {
  const greedy = { ...GREEDY, seedLow: 17 };
  const drawn = { ...greedy, temperature: 0.8, position: output };
  return [greedy, drawn, { ...drawn, topK: 40, topP: 0.9, minP: 0.02 }][output % 3];
}
