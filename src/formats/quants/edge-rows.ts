/**
 * Rows that visit the corners of a weight format, for tests of any decoder: every code byte (every row of a code book)
 * under every pair of edge scales (zeros, subnormals, largest, negative, infinite, NaN). Deterministic; not part of running a model.
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
  iq2_xxs: [0],
  iq2_xs: [0],
  iq2_s: [0],
  iq3_xxs: [0],
  iq3_s: [0],
  iq1_s: [0],
  iq1_m: [48], // spread over four top nibbles from there on
};

/**
 * How blocks name rows of a code book: `blocks` blocks name each row once, block n of them after `place`. Two more blocks
 * per scale keep their bytes, so that high index bits differ within a block.
 */
interface Sweep {
  readonly blocks: number;
  place(block: Uint8Array, n: number): void;
}

/** 32 (or 64) rows a block: row `count·n + i` of the book has its low byte at `at(i)`. */
function lowBytes(block: Uint8Array, n: number, count: number, at: (i: number) => number): void {
  for (let i = 0; i < count; i++) block[at(i)] = count * n + i;
}

const SWEEPS: Readonly<Record<string, Sweep>> = {
  iq2_xxs: { blocks: 8, place: (block, n) => lowBytes(block, n, 32, (i) => 2 + 8 * (i >> 2) + (i & 3)) },
  iq2_xs: {
    blocks: 16,
    place(block, n) {
      lowBytes(block, n, 32, (i) => 2 + 2 * i);
      for (let i = 0; i < 32; i++) block[3 + 2 * i] = (block[3 + 2 * i] & 0xfe) | (n >> 3);
    },
  },
  iq2_s: {
    blocks: 32,
    place(block, n) {
      lowBytes(block, n, 32, (i) => 2 + i);
      block.fill((n >> 3) * 0x55, 66, 74);
    },
  },
  iq3_xxs: { blocks: 4, place: (block, n) => lowBytes(block, n, 64, (i) => 2 + i) },
  iq3_s: {
    blocks: 8,
    place(block, n) {
      lowBytes(block, n, 64, (i) => 2 + i);
      block.fill((n >> 2) * 0xff, 66, 74);
    },
  },
  iq1_s: {
    blocks: 64,
    place(block, n) {
      lowBytes(block, n, 32, (i) => 2 + i);
      const high = (n >> 3) * 0x249;
      for (let at = 34; at < 50; at += 2) {
        block[at] = high;
        block[at + 1] = (block[at + 1] & 0xf0) | (high >> 8);
      }
    },
  },
  iq1_m: {
    blocks: 64,
    place(block, n) {
      lowBytes(block, n, 32, (i) => i);
      for (let at = 32; at < 48; at++) block[at] = (block[at] & 0x88) | ((n >> 3) * 0x11);
    },
  },
};

/** Rows of `EDGE_COLUMNS` weights, one after the other. */
export function edgeRows(format: QuantFormat): Uint8Array {
  const halves = HALVES[format.name] ?? [];
  const size = (EDGE_COLUMNS / format.blockSize) * format.blockBytes;
  const pairs = halves.length === 2 ? EDGE_HALVES.length ** 2 : EDGE_HALVES.length;
  const sweep = SWEEPS[format.name];
  const perPair = (sweep?.blocks ?? 0) + 2;
  // Plain floats: every byte value in every position of a weight, and 16-bit patterns spread over all exponents. For
  // mxfp4 every byte value of the exponent.
  const rows = halves.length === 0 ? 256 : pairs * perPair;
  const bytes = new Uint8Array(rows * size);
  let state = 1;
  for (let i = 0; i < bytes.length; i++) {
    // Even rows count through all bytes; odd rows are a linear congruential sequence, so that scales and codes mix.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const row = Math.floor(i / size);
    bytes[i] = row % 2 === 0 ? i + row : state >>> 24;
  }
  for (let at = 0; at < bytes.length; at += format.blockBytes) {
    const row = Math.floor(at / size);
    const pair = Math.floor(row / perPair);
    const n = row % perPair;
    if (sweep !== undefined && n < sweep.blocks) sweep.place(bytes.subarray(at, at + format.blockBytes), n);
    for (const [index, offset] of halves.entries()) {
      const half = EDGE_HALVES[(index === 0 ? pair : Math.floor(pair / EDGE_HALVES.length)) % EDGE_HALVES.length];
      if (format.name === 'iq1_m') spreadHalf(bytes.subarray(at + offset), half);
      else {
        bytes[at + offset] = half;
        bytes[at + offset + 1] = half >> 8;
      }
    }
  }
  return bytes;
}

/** Nibble i of the half to the top of the i-th u16. */
function spreadHalf(words: Uint8Array, half: number): void {
  for (let i = 0; i < 4; i++) words[2 * i + 1] = (words[2 * i + 1] & 15) | (((half >> (4 * i)) & 15) << 4);
}
