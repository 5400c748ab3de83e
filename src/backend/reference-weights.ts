/**
 * Weights of the reference: read from the checkpoint when a step first needs them, decoded once and kept while the
 * budget lasts. The unit is a matrix: a whole 1-D or 2-D weight, or one matrix of a 3-D one, so a mixture of experts
 * that does not fit in memory still runs, slowly.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { type QuantFormat, rowBytes } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { decodeScales, SCALE_BYTES } from '../formats/quants/scales.ts';
import type { WeightReader } from '../ops/op.ts';
import type { Program } from '../program/program.ts';
import type { Weight } from '../program/tensor.ts';

/** Raw bytes of a matrix, or its values once decoded. */
interface Loaded {
  readonly bytes: number;
  readonly raw?: { readonly data: Uint8Array; readonly scales?: Float32Array };
  readonly values?: Float32Array;
}

/** [N] is one row of N; [N, K] is N rows of K; [E, N, K] is E matrices of N rows of K. */
function matrixShape({ shape }: Weight): { matrices: number; rows: number; columns: number } {
  if (shape.length === 1) return { matrices: 1, rows: 1, columns: shape[0] };
  const [rows, columns] = shape.slice(-2);
  return { matrices: shape.length === 3 ? shape[0] : 1, rows, columns };
}

export class ReferenceWeights {
  readonly #program: Program;
  readonly #checkpoint: Checkpoint;
  readonly #limit: number;
  /** By `weight/matrix`, least recently used first. */
  readonly #loaded = new Map<string, Loaded>();
  #bytes = 0;

  /** `limit`: bytes of decoded and raw matrices to keep. What one step needs is kept in any case. */
  constructor(program: Program, checkpoint: Checkpoint, limit: number) {
    this.#program = program;
    this.#checkpoint = checkpoint;
    this.#limit = limit;
    for (const weight of program.weights) checkParts(weight, checkpoint);
  }

  /** Makes the matrices of these weights ready; `chosen` are the matrices wanted of 3-D weights (absent: all). */
  async load(weights: readonly number[], chosen?: ReadonlySet<number>): Promise<void> {
    const wanted = weights.flatMap((id) => {
      const { matrices } = matrixShape(this.#program.weights[id]);
      const all = Array.from({ length: matrices }, (_, matrix) => ({ key: `${id}/${matrix}`, id, matrix }));
      return chosen && matrices > 1 ? all.filter(({ matrix }) => chosen.has(matrix)) : all;
    });
    const missing = wanted.filter(({ key }) => {
      const loaded = this.#loaded.get(key);
      if (!loaded) return true;
      this.#loaded.delete(key); // to the recent end
      this.#loaded.set(key, loaded);
      return false;
    });
    const kept = new Set(wanted.map(({ key }) => key));
    for (const { key, id, matrix } of missing) {
      const weight = this.#program.weights[id];
      const decoded = matrixShape(weight).rows * matrixShape(weight).columns * 4;
      this.#evict(decoded, kept);
      const loaded = await this.#read(weight, matrix, this.#bytes + decoded <= this.#limit);
      this.#loaded.set(key, loaded);
      this.#bytes += loaded.bytes;
    }
  }

  /** Drops the least recently used until `bytes` more fit, never those in `kept`. */
  #evict(bytes: number, kept: ReadonlySet<string>): void {
    for (const [key, loaded] of this.#loaded) {
      if (this.#bytes + bytes <= this.#limit) return;
      if (kept.has(key)) continue;
      this.#loaded.delete(key);
      this.#bytes -= loaded.bytes;
    }
  }

  async #read(weight: Weight, matrix: number, decode: boolean): Promise<Loaded> {
    const { columns, rows } = matrixShape(weight);
    const format = quantFormat(weight.format);
    const { data, scales: table } = await readMatrix(this.#checkpoint, weight, matrix);
    const type = weight.scaleType ?? format.scaleBlock?.type;
    const raw = { data, scales: table && type && decodeScales(type, table) };
    if (!decode) return { bytes: data.length, raw };
    const values = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) decodeRow(format, raw, r, values.subarray(r * columns, (r + 1) * columns));
    checkFinite(weight, matrix, values);
    return { bytes: values.byteLength, values };
  }

  /** Rows of a weight that was loaded. */
  reader(id: number): WeightReader {
    const weight = this.#program.weights[id];
    const { matrices, rows, columns } = matrixShape(weight);
    const format = quantFormat(weight.format);
    const scratch = new Float32Array(columns);
    const found: (Loaded | undefined)[] = Array.from({ length: matrices }, (_, m) => this.#loaded.get(`${id}/${m}`));
    return {
      shape: weight.shape,
      format: weight.format,
      rows: matrices * rows,
      columns,
      row(index) {
        const matrix = Math.floor(index / rows);
        const loaded = found[matrix];
        const row = index - matrix * rows;
        if (loaded?.values) return loaded.values.subarray(row * columns, (row + 1) * columns);
        if (loaded?.raw) return decodeRow(format, loaded.raw, row, scratch);
        throw new TandemError('PROGRAM_INVALID', {
          room: 'backend',
          rule: `${weight.name} has ${matrices} matrices of ${rows} rows, read where chosen`,
          given: `row ${index} was asked for`,
        });
      },
    };
  }

  /** Forgets everything. */
  clear(): void {
    this.#loaded.clear();
    this.#bytes = 0;
  }
}

/** The bytes of one matrix of a weight, its own rows in their order, and those of its scales where they lie apart. */
export async function readMatrix(
  checkpoint: Checkpoint,
  weight: Weight,
  matrix: number,
): Promise<{ readonly data: Uint8Array; readonly scales?: Uint8Array }> {
  const { columns, rows } = matrixShape(weight);
  const format = quantFormat(weight.format);
  const of = weight.rows?.of ?? rows;
  const bytes = rowBytes(format, columns);
  const stored = await partOf(checkpoint, weight, weight.parts, matrix, bytes * of);
  const data = ownRows(weight, weight.byColumns ? turned(stored, columns, of) : stored, bytes, rows);
  if (!weight.scales || !format.scaleBlock) return { data };
  const { rows: height, columns: width, type } = format.scaleBlock;
  const row = Math.ceil(columns / width) * SCALE_BYTES[weight.scaleType ?? type];
  const table = await partOf(checkpoint, weight, weight.scales, matrix, Math.ceil(of / height) * row);
  return { data, scales: ownRows(weight, table, row, Math.ceil(rows / height), height) };
}

/** The bytes of one matrix: a part of its own, or a slice of the one part of a 3-D weight. */
async function partOf(
  checkpoint: Checkpoint,
  weight: Weight,
  parts: readonly string[],
  matrix: number,
  bytes: number,
): Promise<Uint8Array> {
  const sliced = weight.shape.length === 3 && parts.length === 1;
  const name = sliced ? parts[0] : parts[matrix];
  const data = sliced ? await checkpoint.readTensor(name, matrix, matrix + 1) : await checkpoint.readTensor(name);
  if (data.length === bytes) return data;
  throw new TandemError('MODEL_INVALID', {
    room: 'backend',
    rule: `${weight.name} [${weight.format} ${weight.shape.join('x')}] has ${bytes} bytes a matrix`,
    given: `tensor ${name} gave ${data.length}`,
    fix: 'check the checkpoint with `tandem inspect`',
  });
}

/** The rows of a matrix that are the weight's; of a table in which `height` rows share one, `rows` are counted in those. */
function ownRows({ rows: view }: Weight, stored: Uint8Array, bytes: number, rows: number, height = 1): Uint8Array {
  if (!view) return stored;
  const { step = 1 } = view;
  const start = view.start / height;
  if (step === 1) return stored.subarray(start * bytes, (start + rows) * bytes);
  const own = new Uint8Array(rows * bytes);
  for (let n = 0; n < rows; n++) {
    const at = (start + n * step) * bytes;
    own.set(stored.subarray(at, at + bytes), n * bytes);
  }
  return own;
}

/** A matrix of numbers stored as `columns` rows, with its rows as they are. */
function turned(stored: Uint8Array, columns: number, rows: number): Uint8Array {
  const size = stored.length / (columns * rows);
  const own = new Uint8Array(stored.length);
  for (let c = 0; c < columns; c++)
    for (let r = 0; r < rows; r++) {
      const from = (c * rows + r) * size;
      const to = (r * columns + c) * size;
      for (let b = 0; b < size; b++) own[to + b] = stored[from + b];
    }
  return own;
}

function decodeRow(format: QuantFormat, raw: NonNullable<Loaded['raw']>, row: number, out: Float32Array): Float32Array {
  const bytes = rowBytes(format, out.length);
  let scales: Float32Array | undefined;
  if (raw.scales && format.scaleBlock) {
    const width = Math.ceil(out.length / format.scaleBlock.columns);
    const start = Math.floor(row / format.scaleBlock.rows) * width;
    scales = raw.scales.subarray(start, start + width);
  }
  format.decodeRow(raw.data.subarray(row * bytes, (row + 1) * bytes), out, scales);
  return out;
}

/** As the native core: a NaN in a weight would make every answer NaN, far from its cause. */
function checkFinite(weight: Weight, matrix: number, values: Float32Array): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  throw new TandemError('MODEL_INVALID', {
    room: 'backend',
    rule: 'weights are finite numbers',
    given: `${weight.parts[matrix] ?? weight.name} (${weight.format}) has ${values[at]} at element ${at} of matrix ${matrix}`,
    fix: 'the file is damaged or was converted wrongly; fetch it again',
  });
}

/** Every tensor a weight names is in the checkpoint. */
function checkParts(weight: Weight, checkpoint: Checkpoint): void {
  for (const part of [...weight.parts, ...(weight.scales ?? [])])
    if (!checkpoint.tensors.has(part))
      throw new TandemError('MODEL_INVALID', {
        room: 'backend',
        rule: `${weight.name} is read from tensors of the checkpoint`,
        given: `${checkpoint.name} has no tensor ${part}`,
        fix: 'use the checkpoint the program was made for',
      });
}

/** Bytes of all weights as the checkpoint holds them, scales included. */
export function weightBytes(program: Program, checkpoint: Checkpoint): number {
  const names = new Set(program.weights.flatMap(({ parts, scales }) => [...parts, ...(scales ?? [])]));
  let total = 0;
  for (const name of names) total += checkpoint.tensors.get(name)?.bytes ?? 0;
  return total;
}
