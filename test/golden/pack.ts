/** Matrices in formats with scales apart, for tiny checkpoints: codes, scales, and the values they stand for. */
import { rowBytes, type ScaleType } from '../../src/formats/dtype.ts';
import { E4M3_VALUES } from '../../src/formats/quants/half.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { decodeScales, encodeScales, SCALE_BYTES } from '../../src/formats/quants/scales.ts';

export type PackedFormat = 'int4_g32' | 'mxfp4_g32' | 'f8_e4m3';

export interface Packed {
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
  readonly scaleType: ScaleType;
  readonly values: Float32Array;
}

/** `rows` × `columns` values; FP8 with bf16 scales. */
export function pack(format: PackedFormat, values: Float32Array, columns: number): Packed {
  const quant = quantFormat(format);
  const rows = values.length / columns;
  const block = quant.scaleBlock!;
  const scaleType = format === 'f8_e4m3' ? 'bf16' : block.type;
  const codes = new Uint8Array(rows * rowBytes(quant, columns));
  const across = Math.ceil(columns / block.columns);
  const scales = new Uint8Array(Math.ceil(rows / block.rows) * across * SCALE_BYTES[scaleType]);
  if (format === 'f8_e4m3') packFp8(values, columns, codes, scales);
  else
    for (let r = 0; r < rows; r++)
      quant.encodeScaledRow!(
        values.subarray(r * columns, (r + 1) * columns),
        part(codes, rows, r),
        part(scales, rows, r),
      );
  const numbers = decodeScales(scaleType, scales);
  const decoded = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) {
    const first = Math.floor(r / block.rows) * across;
    const row = decoded.subarray(r * columns, (r + 1) * columns);
    quant.decodeRow(part(codes, rows, r), row, numbers.subarray(first, first + across));
  }
  return { codes, scales, scaleType, values: decoded };
}

/** One of `parts` of the same length. */
export function part<T extends Uint8Array | Float32Array>(all: T, parts: number, index: number): T {
  const size = all.length / parts;
  return all.subarray(index * size, (index + 1) * size) as T;
}

/** Each block of 128 × 128 reaches up to 448, the largest e4m3. */
function packFp8(values: Float32Array, columns: number, codes: Uint8Array, scales: Uint8Array): void {
  const across = Math.ceil(columns / 128);
  const largest = new Float32Array(scales.length / 2);
  const blockOf = (i: number) => Math.floor(i / columns / 128) * across + Math.floor((i % columns) / 128);
  values.forEach((value, i) => {
    largest[blockOf(i)] = Math.max(largest[blockOf(i)], Math.abs(value));
  });
  scales.set(
    encodeScales(
      'bf16',
      largest.map((value) => value / 448),
    ),
  );
  const numbers = decodeScales('bf16', scales);
  values.forEach((value, i) => {
    codes[i] = nearestE4m3(value / numbers[blockOf(i)]);
  });
}

/** Codes 0 to 126 ascend in value; the sign is bit 7. */
function nearestE4m3(value: number): number {
  const magnitude = Math.abs(value);
  let [low, high] = [0, 126];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (E4M3_VALUES[middle] <= magnitude) low = middle;
    else high = middle;
  }
  const code = magnitude - E4M3_VALUES[low] <= E4M3_VALUES[high] - magnitude ? low : high;
  return value < 0 ? code | 128 : code;
}

/** Names and shapes of a packed matrix in safetensors; `outer` are its dimensions but the last. */
export function packedTensors(
  name: string,
  format: PackedFormat,
  outer: readonly number[],
  columns: number,
): [codes: readonly [string, string, number[]], scales: readonly [string, string, number[]]] {
  const rows = outer[outer.length - 1];
  if (format === 'int4_g32')
    return [
      [`${name}_packed`, 'I32', [...outer, columns / 8]],
      [`${name}_scale`, 'BF16', [...outer, columns / 32]],
    ];
  if (format === 'mxfp4_g32')
    return [
      [`${name}_blocks`, 'U8', [...outer, columns / 32, 16]],
      [`${name}_scales`, 'U8', [...outer, columns / 32]],
    ];
  return [
    [name, 'F8_E4M3', [...outer, columns]],
    [`${name}_scale_inv`, 'BF16', [...outer.slice(0, -1), Math.ceil(rows / 128), Math.ceil(columns / 128)]],
  ];
}
