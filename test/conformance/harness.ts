/**
 * Conformance of one op: the same step on `reference` and on the native build of an instruction set, judged by the op's
 * own bound (floats), exactly (integers), with NaN and ±∞ in the same places.
 *
 *     const { isas, reason } = await nativeIsas();
 *     describe.skipIf(reason)(`linear ${reason ?? ''}`, () => {
 *       it.each(isas)('%s', async (isa) => {
 *         await judgeOp({
 *           op: 'linear',
 *           inputs: [floats(5, 256, 1), weight('q4_k', [48, 256], 2)],   // in the order of docs/reference/ops.md
 *           placement: { activation: 'q8_256' },
 *         }, isa);                                                       // throws what is wrong, else returns outputs
 *       });
 *     });
 *
 * How it works: a Program of one step whose values have no producer. They are put there with Stepper.write before the
 * step runs, so such a Program would not pass validateProgram, but every backend can step through it.
 * Ops that read the cache name the whole context in `context`; the harness appends it first: the positions before
 * `firstPosition` in a pass of their own, the rows of the pass in the pass. Pages are handed out in reverse order.
 */
import { createHash } from 'node:crypto';
import type { Backend, Executable, Stepper } from '../../src/backend/backend.ts';
import type { Isa } from '../../src/backend/native/binding.ts';
import { type ReferenceStepper, referenceBackend } from '../../src/backend/reference.ts';
import type { FormatName } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { encodeScales } from '../../src/formats/quants/scales.ts';
import { type Worst, worstError } from '../../src/ops/bound.ts';
import { opNamed } from '../../src/ops/index.ts';
import type { Batch, SamplingRecord } from '../../src/program/batch.ts';
import type { ActivationFormat, Attribute, KvLayer, KvType, Program, Step } from '../../src/program/program.ts';
import { shapeContext } from '../../src/program/rules.ts';
import type { Operand, Rows, Value, Weight } from '../../src/program/tensor.ts';
import { type MemoryTensor, memoryCheckpoint } from './memory-checkpoint.ts';
import { randomBlocks, randomFloats, randomScales } from './random.ts';

export { random, randomBlocks, randomFloats, randomScales } from './random.ts';

/** A value operand. */
export interface GivenValue {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array | Int32Array;
  /** Makes the operand a view: so many columns lie before and after it in a wider value (filled with NaN or −1). */
  readonly pad?: readonly [before: number, after: number];
}

/** A weight operand, raw bytes in row order. */
export interface GivenWeight {
  readonly format: FormatName;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
  /** Of a format with scales apart: for each matrix [⌈N/rows⌉, ⌈K/columns⌉], one after the other, as stored. */
  readonly scales?: Float32Array;
  /** 3-D only: a tensor per matrix, as older files have it. */
  readonly split?: boolean;
  /** 3-D only: the matrices are these rows of stored ones, whose other rows are zeros. */
  readonly rows?: Weight['rows'];
}

export interface OpCase {
  readonly op: string;
  /** In the op's order; null for an absent optional operand. */
  readonly inputs: readonly (GivenValue | GivenWeight | null)[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
  readonly placement?: {
    readonly activation: ActivationFormat;
    readonly middle?: ActivationFormat;
    readonly tiles?: number;
  };
  /** Default: one sequence with all rows from position 0. */
  readonly sequences?: readonly { readonly rows: number; readonly firstPosition: number }[];
  /** Output rows; default: the last row of every sequence (all rows where an input has O rows). */
  readonly outputs?: readonly { readonly row: number; readonly sampling: SamplingRecord | null }[];
  /** Which inputs have O rows. Default: those of `sample`. */
  readonly inputRows?: Rows;
  /** Token ids; default 0, 1, 2 … */
  readonly tokens?: readonly number[];
  /** Default: the columns of the logits or rows of the table, else 1024. */
  readonly vocabSize?: number;
  /** What the cache holds: the inputs of the append op for all positions of all sequences, sequence by sequence. */
  readonly context?: {
    readonly op: 'kv-append' | 'mla-append';
    readonly inputs: readonly [GivenValue, GivenValue];
    /** Heads of the streams of kv-append; default 1. */
    readonly heads?: number;
    /** Default f32. */
    readonly type?: KvType;
  };
}

export interface OpOutput {
  readonly name: string;
  readonly data: Float32Array | Int32Array;
  /** From the reference only. */
  readonly magnitude?: Float32Array;
}

/** Random f32 rows. */
export function floats(rows: number, columns: number, seed: number, deviation = 1): GivenValue {
  return { rows, columns, data: randomFloats(rows * columns, seed, deviation) };
}

/** Given integers. */
export function integers(rows: number, columns: number, data: readonly number[]): GivenValue {
  return { rows, columns, data: Int32Array.from(data) };
}

/** Random weight of a format. */
export function weight(format: FormatName, shape: readonly number[], seed: number, deviation = 0.5): GivenWeight {
  const columns = shape[shape.length - 1];
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const bytes = randomBlocks(format, rows, columns, seed, deviation);
  if (!quantFormat(format).scaleBlock) return { format, shape, bytes };
  const matrices = shape.length === 3 ? shape[0] : 1;
  const parts = Array.from({ length: matrices }, (_, m) =>
    randomScales(format, rows / matrices, columns, seed + 1 + m, deviation),
  );
  return { format, shape, bytes, scales: Float32Array.from(parts.flatMap((part) => [...part])) };
}

/** The ISAs whose kernels run here; none, with the reason, where the addon is not built. */
export async function nativeIsas(): Promise<{ isas: Isa[]; reason?: string }> {
  try {
    const { loadNative } = await import('../../src/backend/native/load.ts');
    return { isas: [...loadNative().machine().isas] };
  } catch (error) {
    return { isas: [], reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Outputs of the case on a backend, in the op's order. */
export async function runOp(
  backend: Backend,
  test: OpCase,
  options: { readonly isa?: string; readonly threads?: number } = {},
): Promise<OpOutput[]> {
  const made = buildCase(test);
  const executable = await backend.prepare(made.program, memoryCheckpoint(made.tensors), {
    pages: made.pages,
    maxRows: Math.max(made.batch.tokens.length, made.history?.batch.tokens.length ?? 0),
    maxOutputs: Math.max(1, made.batch.outputs.length),
    ...options,
  });
  try {
    if (made.history) await runPass(executable, made.history.batch, made.history.writes, [0]);
    const steps = made.program.steps.map((_, index) => index);
    return await runPass(executable, made.batch, made.writes, steps);
  } finally {
    await executable.dispose();
  }
}

const expectations = new Map<string, Promise<OpOutput[]>>();

/** What the reference says; computed once for all cases of the same content, so once for all instruction sets. */
export function expectedOutputs(test: OpCase): Promise<OpOutput[]> {
  const content = contentOf(test);
  let expected = expectations.get(content);
  if (!expected) {
    expected = runOp(referenceBackend({ trackMagnitudes: true }), test);
    expectations.set(content, expected);
  }
  return expected;
}

function contentOf(test: OpCase): string {
  return JSON.stringify(test, (_, value: unknown) => {
    if (typeof value === 'number' && !(Number.isFinite(value) && !Object.is(value, -0))) return `number ${value}`;
    if (!ArrayBuffer.isView(value)) return value;
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return `${value.constructor.name} ${createHash('sha256').update(bytes).digest('hex')}`;
  });
}

/** Runs the case on native with one ISA and throws where it leaves the bound. Returns the worst element of each output. */
export async function judgeOp(
  test: OpCase,
  isa: Isa,
  options: { readonly threads?: number } = {},
): Promise<(Worst | undefined)[]> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const actual = await runOp(nativeBackend(), test, { isa, ...options });
  return judgeOutputs(test, actual, await expectedOutputs(test), isa);
}

/** The judgement itself: throws an Error that names the worst element. */
export function judgeOutputs(
  test: OpCase,
  actual: readonly OpOutput[],
  expected: readonly OpOutput[],
  label: string,
): (Worst | undefined)[] {
  const { bound } = opNamed(test.op);
  return expected.map((right, index) => {
    const left = actual[index];
    const place = `${label}: ${test.op} ${right.name}`;
    if (left.data.length !== right.data.length)
      throw new Error(`${place} has ${left.data.length} elements, not ${right.data.length}`);
    if (right.data instanceof Int32Array) {
      const at = right.data.findIndex((value, i) => value !== left.data[i]);
      if (at >= 0) throw new Error(`${place}[${at}] is ${left.data[at]}, not ${right.data[at]}`);
      return undefined;
    }
    const worst = worstError(bound, left.data as Float32Array, right.data, right.magnitude);
    if (worst && worst.ratio > 1)
      throw new Error(
        `${place}[${worst.index}] is ${worst.actual}, not ${worst.expected} ± ${worst.tolerance} (${worst.ratio} bounds off)`,
      );
    return worst;
  });
}

type Writes = readonly { readonly value: number; readonly data: Float32Array | Int32Array }[];

async function runPass(
  executable: Executable,
  batch: Batch,
  writes: Writes,
  steps: readonly number[],
): Promise<OpOutput[]> {
  const { program } = executable;
  const stepper: Stepper & Partial<ReferenceStepper> = await executable.start(batch);
  try {
    for (const { value, data } of writes) await stepper.write(value, data);
    for (const index of steps) await stepper.step(index);
  } catch (error) {
    await stepper.finish().catch(() => {}); // a pass that is not ended would keep dispose waiting
    throw error;
  }
  const outputs: OpOutput[] = [];
  for (const id of program.steps[steps[steps.length - 1]].outputs) {
    const data = await stepper.read(id);
    outputs.push({ name: program.values[id].name, data, magnitude: stepper.magnitude?.(id) });
  }
  await stepper.finish();
  return outputs;
}

/** Turns a case into a Program, its tensors, and one or two passes. */
function buildCase(test: OpCase) {
  const inputRows = test.inputRows ?? (test.op === 'sample' ? 'O' : 'T');
  const op = opNamed(test.op);
  const values: Value[] = [];
  const weights: Weight[] = [];
  const tensors: MemoryTensor[] = [];
  const writes: { value: number; data: Float32Array | Int32Array }[] = [];

  const addValue = (name: string, type: Value['type'], rows: Rows, columns: number) =>
    values.push({ id: values.length, name, type, rows, columns }) - 1;
  const give = (name: string, given: GivenValue, rows: Rows): Operand => {
    const [before, after] = given.pad ?? [0, 0];
    const type = given.data instanceof Int32Array ? 'i32' : 'f32';
    const value = addValue(name, type, rows, before + given.columns + after);
    writes.push({ value, data: padded(given, before, after) });
    return { kind: 'value', value, start: before, columns: given.columns };
  };
  const giveWeight = (name: string, given: GivenWeight): Operand => {
    weights.push(describeWeight(weights.length, name, given, tensors));
    return { kind: 'weight', weight: weights.length - 1 };
  };

  // The pass: rows of all sequences; or the tail of the context.
  const rowsOf = (given: GivenValue | GivenWeight | null) => (given && 'columns' in given ? given.rows : 0);
  const rows =
    test.tokens?.length ??
    test.sequences?.reduce((sum, sequence) => sum + sequence.rows, 0) ??
    Math.max(1, ...test.inputs.map(rowsOf));
  const sequences = test.sequences ?? [{ rows, firstPosition: 0 }];
  const table = test.inputs[0];
  const implied = test.op === 'sample' ? (table as GivenValue).columns : test.op === 'embed' ? sizeOf(table) : 1024;
  const vocabSize = test.vocabSize ?? implied;
  const { batch, pages } = buildBatch(test, rows, sequences, inputRows, vocabSize);

  // The append step, its rows split into history and tail.
  const steps: Step[] = [];
  const layers: KvLayer[] = [];
  let history: { batch: Batch; writes: Writes } | undefined;
  if (test.context) {
    const { op: append, inputs: given, heads = 1 } = test.context;
    layers.push(
      append === 'kv-append'
        ? { streams: given.map(({ columns }) => ({ heads, width: columns / heads })) }
        : { streams: [{ heads: 1, width: given[0].columns + given[1].columns }] },
    );
    const parts = given.map((matrix) => splitContext(matrix, sequences));
    const operands = parts.map(({ tail }, i) => give(`context.${i}`, tail, 'T'));
    steps.push({ op: append, name: 'append', layer: 0, inputs: operands, outputs: [], attributes: { cache: 0 } });
    const past = sequences.map(({ firstPosition }) => ({ rows: firstPosition, firstPosition: 0 }));
    if (past.some(({ rows }) => rows > 0))
      history = {
        batch: historyBatch(batch, past),
        writes: parts.map(({ head }, i) => ({ value: writes[i].value, data: head.data })),
      };
  }

  const inputs = test.inputs.map((given, i): Operand => {
    if (given === null) return null;
    const name = op.inputs[i].name;
    return 'format' in given ? giveWeight(name, given) : give(name, given, inputRows);
  });
  const step: Step = {
    op: test.op,
    name: test.op,
    layer: 0,
    inputs,
    outputs: [],
    attributes: { ...(test.context ? { cache: 0 } : {}), ...test.attributes },
  };
  const logits = addValue('logits', 'f32', 'O', vocabSize);
  const draft: Program = {
    name: 'one-op',
    vocabSize,
    contextLength: 1 << 20,
    values,
    weights,
    kv: { pageTokens: 64, type: test.context?.type ?? 'f32', layers },
    steps: [],
    logits,
  };
  const outputs = op
    .shape(shapeContext(draft, step, op))
    .map((shape, i) => addValue(`output ${i}`, shape.type, shape.rows, shape.columns));
  steps.push({ ...step, outputs });
  const { activation = 'f32', middle, tiles } = test.placement ?? {};
  const placed = steps.map((each, i) => ({
    ...each,
    placement: {
      device: 'cpu',
      ...(i === steps.length - 1 ? { activation, middle, tiles } : { activation: 'f32' as const }),
    },
  }));
  return { program: { ...draft, steps: placed }, tensors, batch, pages, writes, history };
}

function sizeOf(given: GivenValue | GivenWeight | null): number {
  return given && 'shape' in given ? given.shape[0] : 1024;
}

/** A value with NaN (or −1) around the operand, so that a kernel that reads outside its view is caught. */
function padded(given: GivenValue, before: number, after: number): Float32Array | Int32Array {
  if (before + after === 0) return given.data;
  const stride = before + given.columns + after;
  const floating = given.data instanceof Float32Array;
  const data = floating ? new Float32Array(given.rows * stride) : new Int32Array(given.rows * stride);
  data.fill(floating ? Number.NaN : -1);
  for (let r = 0; r < given.rows; r++)
    data.set(given.data.subarray(r * given.columns, (r + 1) * given.columns), r * stride + before);
  return data;
}

function describeWeight(id: number, name: string, given: GivenWeight, tensors: MemoryTensor[]): Weight {
  const { format, shape, scales, split, rows } = given;
  const bytes = spread(given, given.bytes);
  const { scaleBlock } = quantFormat(format);
  const add = (tensor: string, size: readonly number[], type: string, data: Uint8Array) => {
    tensors.push({ name: tensor, shape: size, format: type, bytes: data });
    return tensor;
  };
  const scaleType = scaleBlock?.type ?? 'f32';
  const scaleBytes = scales && spread(given, encodeScales(scaleType, scales), scaleBlock?.rows);
  const matrices = shape.length === 3 ? shape[0] : 1;
  const cut = (data: Uint8Array, m: number) =>
    data.subarray((data.length / matrices) * m, (data.length / matrices) * (m + 1));
  if (split) {
    const each = Array.from({ length: matrices }, (_, m) => m);
    const parts = each.map((m) => add(`${name}.${m}`, shape.slice(1), format, cut(bytes, m)));
    if (!scaleBytes) return { id, name, shape, format, parts };
    const scaled = each.map((m) =>
      add(`${name}.${m}.scales`, [scales!.length / matrices], scaleType, cut(scaleBytes, m)),
    );
    return { id, name, shape, format, parts, scales: scaled };
  }
  const parts = [add(name, rows ? [shape[0], rows.of, shape[2]] : shape, format, bytes)];
  if (!scaleBytes) return { id, name, shape, format, parts, rows };
  const size = matrices > 1 ? [matrices, scales!.length / matrices] : [scales!.length];
  return { id, name, shape, format, parts, rows, scales: [add(`${name}.scales`, size, scaleType, scaleBytes)] };
}

/** The bytes of the given matrices, or of scales that `height` rows share, among the other rows that are stored with them. */
function spread({ shape, rows }: GivenWeight, bytes: Uint8Array, height = 1): Uint8Array {
  if (!rows) return bytes;
  const [own, of] = [Math.ceil(shape[1] / height), Math.ceil(rows.of / height)];
  const size = bytes.length / (shape[0] * own);
  const stored = new Uint8Array(shape[0] * of * size);
  for (let n = 0; n < shape[0] * own; n++) {
    const at = Math.floor(n / own) * of + rows.start / height + (n % own) * (rows.step ?? 1);
    stored.set(bytes.subarray(n * size, (n + 1) * size), at * size);
  }
  return stored;
}

function buildBatch(
  test: OpCase,
  rows: number,
  sequences: NonNullable<OpCase['sequences']>,
  inputRows: Rows,
  vocabSize: number,
): { batch: Batch; pages: number } {
  const counts = sequences.map(({ rows, firstPosition }) => Math.ceil((rows + firstPosition) / 64));
  const pages = counts.reduce((sum, count) => sum + count, 0);
  let firstRow = 0;
  let page = pages;
  const placed = sequences.map((sequence, slot) => {
    const table = Int32Array.from({ length: counts[slot] }, () => --page);
    const start = firstRow;
    firstRow += sequence.rows;
    return { slot, firstRow: start, ...sequence, pages: table };
  });
  const all = Array.from({ length: rows }, (_, row) => ({ row, sampling: null }));
  const lasts = placed.map(({ firstRow, rows }) => ({ row: firstRow + rows - 1, sampling: null }));
  return {
    pages,
    batch: {
      tokens: test.tokens
        ? Int32Array.from(test.tokens)
        : Int32Array.from({ length: rows }, (_, row) => row % vocabSize),
      sequences: placed,
      outputs: test.outputs ?? (inputRows === 'O' ? all : lasts),
      wantLogits: false,
    },
  };
}

/** The pass that fills the cache: positions before the pass; sequences that have none are left out. */
function historyBatch(batch: Batch, past: readonly { rows: number; firstPosition: number }[]): Batch {
  let firstRow = 0;
  const sequences = batch.sequences.flatMap((sequence, i) => {
    const start = firstRow;
    firstRow += past[i].rows;
    return past[i].rows > 0 ? [{ ...sequence, ...past[i], firstRow: start }] : [];
  });
  const outputs = [{ row: firstRow - 1, sampling: null }];
  return { tokens: new Int32Array(firstRow), sequences, outputs, wantLogits: false };
}

/** Rows of the context before each sequence's firstPosition (head) and those of the pass (tail). */
function splitContext(given: GivenValue, sequences: NonNullable<OpCase['sequences']>) {
  const head: number[] = [];
  const tail: number[] = [];
  let row = 0;
  for (const { rows, firstPosition } of sequences) {
    for (let i = 0; i < firstPosition; i++) head.push(row++);
    for (let i = 0; i < rows; i++) tail.push(row++);
  }
  if (row !== given.rows) throw new Error(`the context has ${given.rows} rows, the sequences have ${row} positions`);
  const pick = (rows: number[]): GivenValue => {
    const data = new Float32Array(rows.length * given.columns);
    rows.forEach((from, to) => {
      data.set(given.data.subarray(from * given.columns, (from + 1) * given.columns), to * given.columns);
    });
    return { rows: rows.length, columns: given.columns, data };
  };
  return { head: pick(head), tail: pick(tail) };
}
