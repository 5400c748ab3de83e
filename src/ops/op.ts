/**
 * An op = its operands and attributes, a shape rule and a reference implementation that defines it. Native kernels are
 * judged against the reference with the bound the op declares (docs/reference/ops.md, numerics).
 */
import type { FormatName } from '../formats/dtype.ts';
import type { Batch } from '../program/batch.ts';
import type { ActivationFormat, KvLayout, Step } from '../program/program.ts';
import type { OpRules } from '../program/rules.ts';

export type { AttributeRule, OperandRule, OutputShape, ShapeContext } from '../program/rules.ts';

/** A dense matrix of a pass. i32 values are Int32Array. */
export interface Matrix<Data = Float32Array> {
  readonly rows: number;
  readonly columns: number;
  readonly data: Data;
}

/** Decoded access to a weight: rows are counted over all outer dimensions ([E, N, K] has E·N rows of K). */
export interface WeightReader {
  readonly shape: readonly number[];
  readonly format: FormatName;
  readonly rows: number;
  readonly columns: number;
  /** The row's values; valid until the next call. */
  row(index: number): Float32Array;
}

/** The paged cache as the reference sees it. Values are already rounded to the cache's type. */
export interface KvReader {
  readonly layout: KvLayout;
  /** Stores one token's stream of one head: `values` has the stream's width. */
  write(pages: Int32Array, layer: number, stream: number, head: number, position: number, values: Float32Array): void;
  read(pages: Int32Array, layer: number, stream: number, head: number, position: number): Float32Array;
}

export interface ReferenceContext {
  readonly batch: Batch;
  readonly positions: Int32Array;
  readonly kv: KvReader;
  /** Keys and values are rounded by it as attention meets them: imitates engines that cache them expanded, in f16. */
  readonly roundAttended?: (value: number) => number;
  readonly step: Step;
  /** Aborted when nobody wants the pass any more. */
  readonly signal?: AbortSignal;
  readonly activation: ActivationFormat;
  readonly middle: ActivationFormat;
  /** Rows from which one matrix is multiplied on tiles, both operands in bf16 (StepPlacement); Infinity: never. */
  readonly tiles: number;
  matrix(operand: number): Matrix;
  integers(operand: number): Matrix<Int32Array>;
  weight(operand: number): WeightReader;
  /** True where the optional operand is there. */
  has(operand: number): boolean;
  number(name: string): number;
  text(name: string): string;
  numbers(name: string): readonly number[];
  flag(name: string): boolean;
  output(index: number): Matrix;
  outputIntegers(index: number): Matrix<Int32Array>;
  /**
   * Where not undefined, the reference also fills Σ|aᵢ·bᵢ| per element of output `index` (same shape), the scale of the
   * accumulation error. Ops whose outputs are elementwise leave it and are judged by ε_out alone.
   */
  magnitude(index: number): Float32Array | undefined;
}

/** |y − ŷ| ≤ c · (epsilonAccumulate · Σ|a·b| + epsilonOut · |ŷ|), see numerics. Integers are exact. */
export interface Bound {
  readonly c: number;
  readonly epsilonAccumulate: number;
  readonly epsilonOut: number;
}

export interface Op extends OpRules {
  readonly bound: Bound;
  /**
   * Which matrices of its 3-D weights a step reads, from the integers of operand `operand`; absent: all of them. So the
   * reference need not hold the experts nobody chose.
   */
  readonly chosenBy?: number;
  reference(context: ReferenceContext): void;
}

/** The one way to declare an op. Names are lower-case words joined by `-`, as in docs/reference/ops.md. */
export function defineOp(op: Op): Op {
  return op;
}
