/**
 * What a Program talks about: values (rows computed in a pass) and weights (bytes of a checkpoint).
 * Only descriptions live here, never data.
 */
import type { FormatName, ScaleType } from '../formats/dtype.ts';

/** Rows of a value: T = tokens of the pass, O = output rows of the pass. */
export type Rows = 'T' | 'O';
export type ElementType = 'f32' | 'i32';

/** A matrix computed in a pass: [rows, columns], row-major and dense. Written once (SSA). */
export interface Value {
  readonly id: number;
  readonly name: string;
  readonly type: ElementType;
  readonly rows: Rows;
  readonly columns: number;
}

/**
 * A weight as the Program sees it, whatever layout the checkpoint has. [N], [N, K] or [E, N, K], outermost first.
 * `parts` are tensors of the checkpoint: one tensor with the whole shape, or (3-D only) E tensors of [N, K].
 */
export interface Weight {
  readonly id: number;
  /** The checkpoint's own name; for per-expert tensors their common name with `{e}` for the number. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: FormatName;
  readonly parts: readonly string[];
  /**
   * 3-D weights in one tensor that stores more rows a matrix than theirs (gate and up in one): row n is row
   * start + n·step of the `of` rows of its matrix. step is 1 where absent; gpt-oss alternates gate and up rows: 2.
   */
  readonly rows?: { readonly start: number; readonly of: number; readonly step?: number };
  /**
   * The parts store each matrix column by column, [K, N] (with `rows`: [K, of]): gpt-oss in bf16 from Hugging Face. Formats of
   * single numbers only; they are turned when they are loaded, so memory is taken once and no kernel knows.
   */
  readonly byColumns?: boolean;
  /** Scale tensors, parallel to `parts`, for formats with a `scaleBlock`. */
  readonly scales?: readonly string[];
  /** How the scale tensors are stored where that is not the format's own type: FP8 with bf16 scales. */
  readonly scaleType?: ScaleType;
}

/** Columns [start, start + columns) of every row of a value. */
export interface ValueOperand {
  readonly kind: 'value';
  readonly value: number;
  readonly start: number;
  readonly columns: number;
}
export interface WeightOperand {
  readonly kind: 'weight';
  readonly weight: number;
}
/** null stands for an optional operand that is absent. */
export type Operand = ValueOperand | WeightOperand | null;
