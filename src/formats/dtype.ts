/** Names of weight formats, everywhere the same: in checkpoints, Programs, kernels, rules and messages. */
export const FORMAT_NAMES = [
  'f32',
  'f16',
  'bf16',
  'q8_0',
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'iq4_nl',
  'q2_k',
  'q3_k',
  'q4_k',
  'q5_k',
  'q6_k',
  'iq4_xs',
  'f8_e4m3',
  'iq2_xxs',
  'iq2_xs',
  'iq2_s',
  'iq3_xxs',
  'iq3_s',
  'iq1_s',
  'iq1_m',
  'mxfp4',
  'mxfp4_g32',
  'int4_g32',
] as const;

export type FormatName = (typeof FORMAT_NAMES)[number];

/** How scales of a tensor of their own are stored; e8m0 is 2^(byte − 127), 255 NaN. */
export type ScaleType = 'f32' | 'bf16' | 'e8m0';

/**
 * A weight format: how a row of K weights is stored and what its values are.
 * Rows are independent; a row is `K / blockSize` blocks of `blockBytes`.
 */
export interface QuantFormat {
  readonly name: FormatName;
  /** Weights in a block (1 for plain floats, 32 or 256 for block formats). K must be a multiple of it. */
  readonly blockSize: number;
  readonly blockBytes: number;
  /**
   * Scales kept in a tensor of their own, one per `rows × columns` weights (FP8 of DeepSeek: 128 × 128; INT4 and MXFP4
   * of Hugging Face: 1 × 32). A ragged last block is allowed: the scale tensor is [⌈N/rows⌉, ⌈K/columns⌉].
   */
  readonly scaleBlock?: { readonly rows: number; readonly columns: number; readonly type: ScaleType };
  /** Name of the type in GGUF and its id, where it has one. */
  readonly ggml?: { readonly id: number; readonly name: string };
  /**
   * Decodes one row: `source` holds exactly the row's bytes, `out` K floats, exact f32 bits as all kernels give.
   * `scales` are the ⌈K/columns⌉ scales of this row, as f32, where `scaleBlock` is set.
   */
  decodeRow(source: Uint8Array, out: Float32Array, scales?: Float32Array): void;
  /** Encodes one row where supported (f32, f16, bf16, q8_0, q4_0, mxfp4): `out` has the row's bytes. */
  encodeRow?(values: Float32Array, out: Uint8Array): void;
  /** The same where scales are apart: `scales` has the row's bytes of them (mxfp4_g32, int4_g32). */
  encodeScaledRow?(values: Float32Array, out: Uint8Array, scales: Uint8Array): void;
}

/** Bytes of a row of `columns` weights. */
export function rowBytes(format: QuantFormat, columns: number): number {
  return (columns / format.blockSize) * format.blockBytes;
}
