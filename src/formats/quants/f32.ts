/** f32: four bytes a weight, bits kept. */
import type { QuantFormat } from '../dtype.ts';
import { checkRow } from './row.ts';

export const f32: QuantFormat = {
  name: 'f32',
  blockSize: 1,
  blockBytes: 4,
  ggml: { id: 0, name: 'F32' },
  decodeRow(source, out) {
    checkRow(f32, source.length, out.length);
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(source);
  },
  encodeRow(values, out) {
    checkRow(f32, out.length, values.length);
    out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  },
};
