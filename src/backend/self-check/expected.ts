/**
 * What the reference says of some elements of a step's outputs: the op's own reference implementation, given some rows of the
 * pass, some rows of a large matrix and some heads, which those elements alone depend on.
 */

import { opNamed } from '../../ops/index.ts';
import type { KvReader, Matrix, ReferenceContext, WeightReader } from '../../ops/op.ts';
import { type Batch, type BatchSequence, phaseOf, rowPositions } from '../../program/batch.ts';
import { executionOf, type Program, type Step } from '../../program/program.ts';
import { attributeOf } from '../../program/rules.ts';
import type { StepInputs, ValueData } from './inputs.ts';
import type { WeightRows } from './weight-rows.ts';

export interface ExpectedOutput {
  readonly value: number;
  /** Of the value: element [i, j] of `data` is element [rows[i], columns[j]]; absent: all columns. */
  readonly rows: readonly number[];
  readonly columns?: readonly number[];
  readonly data: ValueData;
  readonly magnitude: Float32Array;
}

export interface ExpectedStep {
  readonly program: Program;
  readonly step: Step;
  readonly batch: Batch;
  readonly inputs: StepInputs;
  readonly weights: WeightRows;
  /** The cache of the step's layer, layer 0 of its own layout. */
  readonly kv?: KvReader;
  /** Changes which rows of matrices and which heads are looked at. */
  readonly seed: number;
}

/** Rows of a pass that are looked at. */
const ROWS = 3;
/** Rows of a matrix: so many of its outputs. */
const MATRIX_ROWS = 96;
/** Products of a pass that a check of attention may take; one row of one head is taken in any case. */
const PRODUCTS = 5e8;

export async function expectedOutputs(given: ExpectedStep): Promise<ExpectedOutput[]> {
  const { program, step, batch, inputs } = given;
  const op = opNamed(step.op);
  const slice = sliceOf(given);
  const execution = executionOf(step, phaseOf(batch));
  const operand = <Data extends ValueData>(index: number): Matrix<Data> => {
    const input = step.inputs[index];
    if (input?.kind !== 'value') throw new Error(`${step.name}: operand ${index} is no value`);
    const { rows, inputColumns = range(input.columns) } = slice;
    const { columns: stride } = program.values[input.value];
    const whole = inputs.get(input.value)!;
    const size = rows.length * inputColumns.length;
    const data = whole instanceof Int32Array ? new Int32Array(size) : new Float32Array(size);
    let at = 0;
    for (const row of rows) for (const column of inputColumns) data[at++] = whole[row * stride + input.start + column];
    return { rows: rows.length, columns: inputColumns.length, data: data as Data };
  };
  const rows = slice.outputRows ?? slice.rows;
  const outputs = step.outputs.map((id) => {
    const { type, columns: all } = program.values[id];
    const columns = slice.outputColumns?.length ?? all;
    const size = rows.length * columns;
    const data = type === 'i32' ? new Int32Array(size) : new Float32Array(size);
    return { matrix: { rows: rows.length, columns, data }, magnitude: new Float32Array(size) };
  });
  const chosen = op.chosenBy === undefined ? undefined : new Set(operand<Int32Array>(op.chosenBy).data);
  const readers = await readersOf(given, slice, chosen);
  const context: ReferenceContext = {
    batch: slice.batch,
    positions: rowPositions(slice.batch),
    kv: slice.kv ?? given.kv!,
    step,
    activation: execution?.activation ?? 'f32',
    middle: execution?.middle ?? execution?.activation ?? 'f32',
    tiles: onTiles(step, batch, slice.total) ? 1 : Number.POSITIVE_INFINITY,
    matrix: (index) => operand<Float32Array>(index),
    integers: (index) => operand<Int32Array>(index),
    weight: (index) => readers[index]!,
    has: (index) => (step.inputs[index] ?? null) !== null,
    number: (name) => slice.numbers?.[name] ?? (attributeOf(step, op, name) as number),
    text: (name) => attributeOf(step, op, name) as string,
    numbers: (name) => attributeOf(step, op, name) as readonly number[],
    flag: (name) => attributeOf(step, op, name) as boolean,
    output: (index) => outputs[index].matrix as Matrix,
    outputIntegers: (index) => outputs[index].matrix as Matrix<Int32Array>,
    magnitude: (index) => outputs[index].magnitude,
  };
  op.reference(context);
  return step.outputs.map((value, index) => ({
    value,
    rows,
    columns: slice.outputColumns,
    data: outputs[index].matrix.data,
    magnitude: outputs[index].magnitude,
  }));
}

/** By operand. */
function readersOf(
  { program, step, weights }: ExpectedStep,
  { matrixRows, heads }: Slice,
  chosen: ReadonlySet<number> | undefined,
): Promise<(WeightReader | undefined)[]> {
  const readers = step.inputs.map(async (input, index) => {
    if (input?.kind !== 'weight') return undefined;
    const { shape } = program.weights[input.weight];
    if (shape.length === 2 && matrixRows) {
      const reader = await weights.some(input.weight, matrixRows);
      // embed asks for rows by their token, all others from 0 on.
      return step.op === 'embed' ? reader : picked(reader, matrixRows);
    }
    const reader = await weights.whole(input.weight, step.op === 'mla' ? new Set(heads) : chosen);
    if (step.op === 'linear' && index === 2) return vector(reader, matrixRows!);
    if (step.op === 'attention') return vector(reader, heads!);
    if (step.op !== 'mla') return reader;
    const rows = shape[1];
    return { ...reader, row: (at: number) => reader.row(heads![Math.floor(at / rows)] * rows + (at % rows)) };
  });
  return Promise.all(readers);
}

/** What is looked at. */
interface Slice {
  /** Rows of the operands, and how many there are in all. */
  readonly rows: readonly number[];
  readonly total: number;
  /** Rows of the outputs, where they are others. */
  readonly outputRows?: readonly number[];
  /** The batch of these rows alone. */
  readonly batch: Batch;
  /** Of 2-D weights. */
  readonly matrixRows?: readonly number[];
  readonly heads?: readonly number[];
  readonly inputColumns?: readonly number[];
  readonly outputColumns?: readonly number[];
  /** Attributes that are other ones for it. */
  readonly numbers?: Readonly<Record<string, number>>;
  readonly kv?: KvReader;
}

function sliceOf(given: ExpectedStep): Slice {
  const { program, step, batch, seed } = given;
  const [tokens, outputs] = [batch.tokens.length, batch.outputs.length];
  if (step.op === 'gather-rows') return { rows: range(tokens), total: tokens, outputRows: range(outputs), batch };
  const byOutputs = firstRows(program, step) === 'O';
  const total = byOutputs ? outputs : tokens;
  const rows = spread(total, ROWS, 0);
  const part = byOutputs ? { ...batch, outputs: rows.map((o) => batch.outputs[o]) } : rowsAlone(batch, rows);
  if (step.op === 'attention') return attentionSlice(given, total);
  if (step.op === 'mla') return latentSlice(given, total);
  const slice = { rows, total, batch: part };
  if (step.op === 'embed') return { ...slice, matrixRows: rows.map((row) => batch.tokens[row]) };
  if (step.op !== 'linear') return slice;
  const matrixRows = spread(program.values[step.outputs[0]].columns, MATRIX_ROWS, seed);
  return { ...slice, matrixRows, outputColumns: matrixRows };
}

/** Whole groups of query heads: those of some heads of the cache. */
function attentionSlice({ step, batch, kv, seed }: ExpectedStep, total: number): Slice {
  const [heads, kvHeads, headSize, valueSize] = sizes(step, 'heads', 'kvHeads', 'headSize', 'valueSize');
  const group = heads / kvHeads;
  const { rows, kept } = affordable(total, kvHeads, longest(batch) * 2 * (headSize + valueSize) * group, seed);
  const queries = kept.flatMap((head) => range(group).map((i) => head * group + i));
  return {
    rows,
    total,
    batch: rowsAlone(batch, rows),
    heads: queries,
    inputColumns: columnsOf(queries, headSize),
    outputColumns: columnsOf(queries, valueSize),
    numbers: { cache: 0, heads: queries.length, kvHeads: kept.length },
    kv: {
      layout: kv!.layout,
      write: kv!.write.bind(kv),
      read: (pages, layer, stream, head, position) => kv!.read(pages, layer, stream, kept[head], position),
    },
  };
}

/** Some heads; the reference expands the context once a row. */
function latentSlice({ step, batch, kv, seed }: ExpectedStep, total: number): Slice {
  const [heads, nope, rope, latent, value] = sizes(step, 'heads', 'nope', 'rope', 'latent', 'value');
  const { rows, kept } = affordable(total, heads, longest(batch) * 2 * (nope + value) * latent, seed);
  return {
    rows,
    total,
    batch: rowsAlone(batch, rows),
    heads: kept,
    matrixRows: columnsOf(kept, nope + value),
    inputColumns: columnsOf(kept, nope + rope),
    outputColumns: columnsOf(kept, value),
    numbers: { cache: 0, heads: kept.length },
    kv,
  };
}

/** Rows and heads of so many `products` each: fewer rows first, then fewer heads. */
function affordable(total: number, heads: number, products: number, seed: number) {
  const all = spread(total, ROWS, 0);
  const rows = products * all.length > PRODUCTS ? all.slice(-1) : all;
  const count = Math.max(1, Math.min(ROWS, Math.floor(PRODUCTS / (products * rows.length))));
  return { rows, kept: spread(heads, count, seed) };
}

function sizes(step: Step, ...names: readonly string[]): number[] {
  return names.map((name) => Number(step.attributes[name]));
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function longest({ sequences }: Batch): number {
  return Math.max(...sequences.map(({ firstPosition, rows }) => firstPosition + rows));
}

function columnsOf(heads: readonly number[], size: number): number[] {
  return heads.flatMap((head) => range(size).map((i) => head * size + i));
}

/** Up to `count` of [0, total), ascending: the first, the last, and between them no multiple of a power of two apart. */
export function spread(total: number, count: number, seed: number): number[] {
  if (total <= count) return range(total);
  if (count === 1) return [(seed * 7919) % total];
  const chosen = new Set([0, total - 1]);
  for (let i = 1; chosen.size < count; i++) chosen.add(Math.floor(((i * 0.6180339887 + seed * 0.3819) % 1) * total));
  return [...chosen].sort((a, b) => a - b);
}

function firstRows(program: Program, step: Step): 'T' | 'O' {
  const first = step.inputs.find((input) => input?.kind === 'value');
  return first?.kind === 'value' ? program.values[first.value].rows : 'T';
}

/** Each of these rows as a sequence of its own. */
function rowsAlone(batch: Batch, rows: readonly number[]): Batch {
  const sequences = rows.map((row, i): BatchSequence => {
    const of = batch.sequences.find(({ firstRow, rows: count }) => row >= firstRow && row < firstRow + count)!;
    return { slot: i, firstRow: i, rows: 1, firstPosition: of.firstPosition + row - of.firstRow, pages: of.pages };
  });
  return { ...batch, tokens: Int32Array.from(rows, (row) => batch.tokens[row]), sequences, outputs: [] };
}

/** Whether the whole pass goes over tiles: some rows of it alone would not. */
function onTiles(step: Step, batch: Batch, rows: number): boolean {
  const tiles = executionOf(step, phaseOf(batch))?.tiles;
  if (tiles === undefined) return false;
  const attends = step.op === 'attention' || step.op === 'mla';
  return (attends ? Math.max(...batch.sequences.map((sequence) => sequence.rows)) : rows) >= tiles;
}

/** Row i is row `rows[i]`. */
function picked(reader: WeightReader, rows: readonly number[]): WeightReader {
  return {
    ...reader,
    shape: [rows.length, reader.columns],
    rows: rows.length,
    row: (index) => reader.row(rows[index]),
  };
}

/** Some elements of a vector. */
function vector(reader: WeightReader, places: readonly number[]): WeightReader {
  const all = reader.row(0);
  const own = Float32Array.from(places, (place) => all[place]);
  return { ...reader, shape: [own.length], rows: 1, columns: own.length, row: () => own };
}
