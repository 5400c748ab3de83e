/**
 * q3_k: blocks of 256 weights in 110 bytes: 32 bytes of third bits (bit k of byte i is weight 32k+i's), 64 bytes of
 * two-bit codes (each 32 bytes hold 128 weights: bits 0–1 the first 32, 2–3 the next …), 12 bytes of scales, d (f16).
 * Sixteen sub-blocks of 16 with a six-bit scale minus 32: low four bits in the nibbles of bytes 0–7 (low nibbles are
 * scales 0–7, high nibbles 8–15), high two bits in bytes 8–11 (byte 8+j: scales j, j+4, j+8, j+12 from the low bits up).
 * Value `(d·scale)·q` with q = low two bits, minus 4 where the third bit is clear.
 *
 * Order of operations: d·scale, then times q; both exact in f32.
 */
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const q3K = blockFormat({
  name: 'q3_k',
  blockSize: 256,
  blockBytes: 110,
  ggml: { id: 11, name: 'Q3_K' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset + 108);
    const scales = offset + 96;
    for (let s = 0; s < 16; s++) {
      const low = (source[scales + (s & 7)] >> (4 * (s >> 3))) & 15;
      const high = (source[scales + 8 + (s & 3)] >> (2 * (s >> 2))) & 3;
      const scale = d * ((low | (high << 4)) - 32);
      const mask = offset + 16 * (s & 1);
      const maskBit = s >> 1;
      const codes = offset + 32 + 32 * (s >> 3) + 16 * (s & 1);
      const shift = 2 * ((s >> 1) & 3);
      const to = at + 16 * s;
      for (let i = 0; i < 16; i++) {
        const q = ((source[codes + i] >> shift) & 3) | (((source[mask + i] >> maskBit) & 1) << 2);
        out[to + i] = scale * (q - 4);
      }
    }
  },
});
