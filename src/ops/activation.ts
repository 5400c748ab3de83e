/**
 * How activations are rounded before they meet weights, bit for bit as native does it (docs/reference/ops.md). Every
 * operation is rounded to f32 by itself.
 */
import { TandemError } from '../errors.ts';
import type { FormatName } from '../formats/dtype.ts';
import { f32BitsToBf16 } from '../formats/quants/half.ts';
import { quantFormat } from '../formats/quants/index.ts';
import type { ActivationFormat } from '../program/program.ts';
import { EPSILON } from './bound.ts';
import type { Matrix } from './op.ts';

/** Smallest normal f32: a block whose scale would be smaller counts as zeros, so that 1 / scale stays finite. */
const SMALLEST_NORMAL = 2 ** -126;
/** Adding and taking away 1.5·2^52 leaves no room for a fraction: f64 rounds it half to even. −0 becomes 0. */
const ROUNDER = 1.5 * 2 ** 52;

/** The activation format that fits a weight format: one scale per block of the weights. */
export function activationOf(format: FormatName): ActivationFormat {
  const { blockSize } = quantFormat(format);
  return blockSize === 256 ? 'q8_256' : blockSize === 32 ? 'q8_32' : 'f32';
}

/** Values in a block that shares a scale; 1 where there is none. */
export function activationBlock(format: ActivationFormat): number {
  return format === 'q8_256' ? 256 : format === 'q8_32' ? 32 : 1;
}

/** int8 codes and one scale a block of `x`; a block with a non-finite value has scale NaN and codes 0. */
export function quantizeActivations(x: Float32Array, block: number): { codes: Int8Array; scales: Float32Array } {
  if (x.length % block !== 0) {
    throw new TandemError('PROGRAM_INVALID', {
      room: 'ops',
      rule: `activations that share a scale come in blocks of ${block}`,
      given: `${x.length} of them`,
    });
  }
  const codes = new Int8Array(x.length);
  const scales = new Float32Array(x.length / block);
  for (let b = 0; b < scales.length; b++) {
    const start = b * block;
    let amax = 0;
    for (let i = start; i < start + block; i++) amax = Math.max(amax, Math.abs(x[i])); // NaN stays NaN
    if (!Number.isFinite(amax)) {
      scales[b] = Number.NaN;
      continue;
    }
    const scale = Math.fround(amax / 127);
    if (scale < SMALLEST_NORMAL) continue;
    const inverse = Math.fround(1 / scale);
    for (let i = start; i < start + block; i++) {
      const code = Math.fround(x[i] * inverse) + ROUNDER - ROUNDER;
      codes[i] = Math.max(-127, Math.min(127, code));
    }
    scales[b] = scale;
  }
  return { codes, scales };
}

/** The matrix as the weights see it. f32 gives the same matrix, the others a new one. */
export function roundActivations(format: ActivationFormat, matrix: Matrix): Matrix {
  if (format === 'f32') return matrix;
  const data = new Float32Array(matrix.data.length);
  if (format === 'bf16') {
    const from = new Uint32Array(matrix.data.buffer, matrix.data.byteOffset, matrix.data.length);
    const to = new Uint32Array(data.buffer);
    for (let i = 0; i < from.length; i++) to[i] = f32BitsToBf16(from[i]) << 16;
  } else {
    const block = activationBlock(format);
    const { codes, scales } = quantizeActivations(matrix.data, block);
    for (let i = 0; i < data.length; i++) data[i] = scales[(i / block) | 0] * codes[i];
  }
  return { rows: matrix.rows, columns: matrix.columns, data };
}

/**
 * A matrix, or a decoded row of a weight, as tiles see it (fast mode): bf16, rounded to nearest even. What is subnormal
 * there counts as 0, as in TDPBF16PS and VDPBF16PS.
 */
export function roundForTiles(data: Float32Array): Float32Array {
  const rounded = roundActivations('bf16', { rows: 1, columns: data.length, data }).data;
  for (let i = 0; i < rounded.length; i++) if (Math.abs(rounded[i]) < SMALLEST_NORMAL) rounded[i] = 0;
  return rounded;
}

/**
 * How far the rounded row may be from ours when the row before rounding is known up to `error` (per element, without
 * the bound's factor `c`). A code can only flip where the value lies within c·error of the middle between two codes;
 * there it moves by one step, elsewhere by the relative error of its scale. Result is again without `c`.
 */
export function roundedError(format: ActivationFormat, x: Float32Array, error: Float64Array, c: number): Float64Array {
  const result = new Float64Array(x.length);
  if (format === 'f32') result.set(error);
  else if (format === 'bf16') {
    for (let i = 0; i < x.length; i++) {
      const step = 2 ** (Math.floor(Math.log2(Math.abs(x[i]) || 2 ** -126)) - 7);
      result[i] = canFlip(x[i] / step, (c * error[i]) / step) ? step / c : 0;
    }
  } else {
    const block = activationBlock(format);
    const { codes, scales } = quantizeActivations(x, block);
    for (let b = 0; b < scales.length; b++) {
      const step = scales[b];
      if (!(step > 0)) continue;
      // The scale is off by the error of the largest value, and by one rounding of its own.
      let scaleError = 0;
      for (let i = b * block; i < (b + 1) * block; i++)
        if (Math.abs(x[i]) >= 126 * step) scaleError = Math.max(scaleError, error[i] / (127 * step));
      scaleError += EPSILON / c;
      for (let i = b * block; i < (b + 1) * block; i++) {
        const codeError = (c * (error[i] + Math.abs(x[i]) * scaleError)) / step;
        result[i] = Math.abs(codes[i] * step) * scaleError + (canFlip(x[i] / step, codeError) ? step / c : 0);
      }
    }
  }
  return result;
}

/** True where a number known up to `error` may lie on the other side of a middle between two integers. */
function canFlip(value: number, error: number): boolean {
  return Math.abs(Math.abs(value) - Math.floor(Math.abs(value)) - 0.5) <= error + 2 ** -20;
}
