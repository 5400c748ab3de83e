/** Scales of tensors of their own: their bytes in a file, and as f32. */
import type { ScaleType } from '../dtype.ts';
import { f32BitsToBf16 } from './half.ts';

/** Bytes of one scale. */
export const SCALE_BYTES: Readonly<Record<ScaleType, number>> = { f32: 4, bf16: 2, e8m0: 1 };

/** The scales as f32, exactly. */
export function decodeScales(type: ScaleType, bytes: Uint8Array): Float32Array {
  if (type === 'f32') return new Float32Array(new Uint8Array(bytes).buffer); // a Buffer's slice is no copy
  if (type === 'e8m0') return Float32Array.from(bytes, (byte) => (byte === 255 ? Number.NaN : 2 ** (byte - 127)));
  const words = new Uint32Array(bytes.length / 2);
  for (let i = 0; i < words.length; i++) words[i] = ((bytes[2 * i] | (bytes[2 * i + 1] << 8)) << 16) >>> 0;
  return new Float32Array(words.buffer);
}

/** Their bytes; bf16 is rounded to nearest even, e8m0 down to a power of two (at least 2^-127). */
export function encodeScales(type: ScaleType, scales: Float32Array): Uint8Array {
  if (type === 'f32') return new Uint8Array(scales.slice().buffer);
  const bits = new Uint32Array(scales.buffer, scales.byteOffset, scales.length);
  if (type === 'e8m0') return Uint8Array.from(bits, (word) => (word >>> 23) & 255);
  return new Uint8Array(Uint16Array.from(bits, f32BitsToBf16).buffer);
}
