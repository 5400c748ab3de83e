/**
 * Some rows of a program's weights, decoded: of a large matrix those that are asked for are read and no others, so that a check
 * of a model takes no time by its size.
 */
import type { Checkpoint } from '../../formats/checkpoint.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import { decodeScales, SCALE_BYTES } from '../../formats/quants/scales.ts';
import type { WeightReader } from '../../ops/op.ts';
import type { Program } from '../../program/program.ts';
import { ReferenceWeights } from '../reference-weights.ts';

/** Decoded matrices that are kept: those of a few experts. */
const KEPT_BYTES = 2 ** 30;

export class WeightRows {
  readonly #program: Program;
  readonly #checkpoint: Checkpoint;
  readonly #whole: ReferenceWeights;
  /** Decoded rows of matrices, by weight. */
  readonly #rows = new Map<number, Map<number, Float32Array>>();

  constructor(program: Program, checkpoint: Checkpoint) {
    this.#program = program;
    this.#checkpoint = checkpoint;
    this.#whole = new ReferenceWeights(program, checkpoint, KEPT_BYTES);
  }

  /** Vectors, and matrices of 3-D weights (`chosen`; absent: all), as they are. */
  async whole(id: number, chosen?: ReadonlySet<number>): Promise<WeightReader> {
    await this.#whole.load([id], chosen);
    return this.#whole.reader(id);
  }

  /** Rows of a 2-D weight by their own numbers; a row that was not asked for is an error. */
  async some(id: number, rows: readonly number[]): Promise<WeightReader> {
    const weight = this.#program.weights[id];
    const [count, columns] = weight.shape;
    let known = this.#rows.get(id);
    if (!known) this.#rows.set(id, (known = new Map()));
    for (const row of rows) if (!known.has(row)) known.set(row, await this.#read(id, row));
    const have = known;
    return { shape: weight.shape, format: weight.format, rows: count, columns, row: (index) => have.get(index)! };
  }

  async #read(id: number, row: number): Promise<Float32Array> {
    const weight = this.#program.weights[id];
    const columns = weight.shape[1];
    const format = quantFormat(weight.format);
    const values = new Float32Array(columns);
    const { scaleBlock } = format;
    const scales = weight.scales && scaleBlock ? await this.#scales(id, Math.floor(row / scaleBlock.rows)) : undefined;
    format.decodeRow(await this.#checkpoint.readTensor(weight.parts[0], row, row + 1), values, scales);
    return values;
  }

  /** A row of the scales of a matrix. Their tensor need not have the shape of one. */
  async #scales(id: number, row: number): Promise<Float32Array> {
    const { scales, scaleType, format, shape } = this.#program.weights[id];
    const { columns, type } = quantFormat(format).scaleBlock!;
    const bytes = Math.ceil(shape[1] / columns) * SCALE_BYTES[scaleType ?? type];
    const table = await this.#checkpoint.readTensor(scales![0]);
    return decodeScales(scaleType ?? type, table.subarray(row * bytes, (row + 1) * bytes));
  }
}
