/** f16: IEEE half. Decoding is exact, encoding rounds to nearest even. */
import type { QuantFormat } from '../dtype.ts';
import { F16_BITS, f32BitsToF16 } from './half.ts';
import { checkRow } from './row.ts';

export const f16: QuantFormat = {
  name: 'f16',
  blockSize: 1,
  blockBytes: 2,
  ggml: { id: 1, name: 'F16' },
  decodeRow(source, out) {
    checkRow(f16, source.length, out.length);
    // Bits, not numbers: a NaN keeps its payload.
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    const table = F16_BITS;
    for (let i = 0; i < bits.length; i++) bits[i] = table[source[2 * i] | (source[2 * i + 1] << 8)];
  },
  encodeRow(values, out) {
    checkRow(f16, out.length, values.length);
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < bits.length; i++) {
      const half = f32BitsToF16(bits[i]);
      out[2 * i] = half;
      out[2 * i + 1] = half >> 8;
    }
  },
};
