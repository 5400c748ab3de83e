/**
 * Rows that visit the corners of a weight format, for tests of any decoder: every code byte under every pair of edge
 * scales (zeros, subnormals, largest, negative, infinite, NaN). Deterministic; not part of running a model.
 */
import type { QuantFormat } from '../dtype.ts';

/** Columns of an edge row: a multiple of every block size and of the scale columns of FP8. */
export const EDGE_COLUMNS = 256;

/** Halves: 1, ±0, least and largest subnormal, least normal, ±largest, an ordinary negative, ±∞, NaN. */
const EDGE_HALVES = [
  0x3c00, 0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0xaa55, 0x7c00, 0xfc00, 0x7e00,
] as const;

/** Where the halves of a block are, in bytes from its start. */
const HALVES: Readonly<Record<string, readonly number[]>> = {
  q8_0: [0],
  q4_0: [0],
  q4_1: [0, 2],
  q5_0: [0],
  q5_1: [0, 2],
  iq4_nl: [0],
  q2_k: [80, 82],
  q3_k: [108],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
  iq4_xs: [0],
};

/** Rows of `EDGE_COLUMNS` weights, one after the other. */
export function edgeRows(format: QuantFormat): Uint8Array {
  const halves = HALVES[format.name] ?? [];
  const size = (EDGE_COLUMNS / format.blockSize) * format.blockBytes;
  const pairs = halves.length === 2 ? EDGE_HALVES.length ** 2 : EDGE_HALVES.length;
  // Plain floats: every byte value in every position of a weight, and 16-bit patterns spread over all exponents.
  const rows = halves.length === 0 ? 256 : pairs * 2;
  const bytes = new Uint8Array(rows * size);
  let state = 1;
  for (let i = 0; i < bytes.length; i++) {
    // Even rows count through all bytes; odd rows are a linear congruential sequence, so that scales and codes mix.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const row = Math.floor(i / size);
    bytes[i] = row % 2 === 0 ? i + row : state >>> 24;
  }
  for (let at = 0; at < bytes.length; at += format.blockBytes) {
    const pair = Math.floor(at / size / 2);
    for (const [index, offset] of halves.entries()) {
      const half = EDGE_HALVES[(index === 0 ? pair : Math.floor(pair / EDGE_HALVES.length)) % EDGE_HALVES.length];
      bytes[at + offset] = half;
      bytes[at + offset + 1] = half >> 8;
    }
  }
  return bytes;
}
