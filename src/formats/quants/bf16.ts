/** bf16: the upper half of an f32. Decoding is exact, encoding rounds to nearest even. */
import type { QuantFormat } from '../dtype.ts';
import { f32BitsToBf16 } from './half.ts';
import { checkRow } from './row.ts';

export const bf16: QuantFormat = {
  name: 'bf16',
  blockSize: 1,
  blockBytes: 2,
  ggml: { id: 30, name: 'BF16' },
  decodeRow(source, out) {
    checkRow(bf16, source.length, out.length);
    // Bits, not numbers: a NaN keeps its payload.
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < bits.length; i++) bits[i] = (source[2 * i] << 16) | (source[2 * i + 1] << 24);
  },
  encodeRow(values, out) {
    checkRow(bf16, out.length, values.length);
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < bits.length; i++) {
      const half = f32BitsToBf16(bits[i]);
      out[2 * i] = half;
      out[2 * i + 1] = half >> 8;
    }
  },
};
