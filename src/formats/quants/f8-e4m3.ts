/**
 * f8_e4m3: DeepSeek's FP8. One byte a weight, one f32 (of Qwen: bf16) scale (`weight_scale_inv`) per 128 × 128 weights in a tensor of
 * its own.
 *
 * Order of operations: `e4m3(byte) · scale`, one f32 rounding.
 */
import type { QuantFormat } from '../dtype.ts';
import { E4M3_VALUES } from './half.ts';
import { checkRow, checkScales } from './row.ts';

const COLUMNS = 128;

export const f8E4m3: QuantFormat = {
  name: 'f8_e4m3',
  blockSize: 1,
  blockBytes: 1,
  scaleBlock: { rows: 128, columns: COLUMNS, type: 'f32' },
  decodeRow(source, out, scales) {
    checkRow(f8E4m3, source.length, out.length);
    checkScales(f8E4m3, out.length, scales);
    const values = E4M3_VALUES;
    for (let i = 0; i < out.length; i++) out[i] = values[source[i]] * scales[(i / COLUMNS) | 0];
  },
};
