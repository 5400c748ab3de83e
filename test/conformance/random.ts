/** Random numbers and weights for tests, from a seed: the same on every machine. */
import { type FormatName, rowBytes } from '../../src/formats/dtype.ts';
import { f32ToF16 } from '../../src/formats/quants/half.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { decodeScales, encodeScales } from '../../src/formats/quants/scales.ts';

/** Uniform in [0, 1) (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** About normal with this deviation (sum of four uniforms), with an outlier of 8 deviations now and then. */
export function randomFloats(count: number, seed: number, deviation = 1): Float32Array {
  const next = random(seed);
  return Float32Array.from({ length: count }, () => {
    const normal = (next() + next() + next() + next() - 2) * Math.sqrt(3);
    return deviation * (next() < 0.01 ? 8 * Math.sign(normal) : normal);
  });
}

/** Byte offsets of the f16 fields of a block, and whether one is a min (a quarter of the scale, either sign). */
const HALVES: Partial<Record<FormatName, readonly { readonly at: number; readonly size: number }[]>> = {
  q8_0: [{ at: 0, size: 1 / 127 }],
  q4_0: [{ at: 0, size: 1 / 8 }],
  q4_1: [
    { at: 0, size: 1 / 8 },
    { at: 2, size: 1 },
  ],
  q5_0: [{ at: 0, size: 1 / 16 }],
  q5_1: [
    { at: 0, size: 1 / 16 },
    { at: 2, size: 1 },
  ],
  iq4_nl: [{ at: 0, size: 1 / 127 }],
  q2_k: [
    { at: 80, size: 1 / 45 },
    { at: 82, size: 1 / 20 },
  ],
  q3_k: [{ at: 108, size: 1 / 128 }],
  q4_k: [
    { at: 0, size: 1 / 945 },
    { at: 2, size: 1 / 126 },
  ],
  q5_k: [
    { at: 0, size: 1 / 1953 },
    { at: 2, size: 1 / 126 },
  ],
  q6_k: [{ at: 208, size: 1 / 4096 }],
  iq4_xs: [{ at: 0, size: 1 / 4064 }],
  iq2_xxs: [{ at: 0, size: 1 / 166 }],
  iq2_xs: [{ at: 0, size: 1 / 166 }],
  iq2_s: [{ at: 0, size: 1 / 166 }],
  iq3_xxs: [{ at: 0, size: 1 / 480 }],
  iq3_s: [{ at: 0, size: 1 / 465 }],
  iq1_s: [{ at: 0, size: 1 / 17 }],
};

/**
 * Raw bytes of `rows` rows of `columns` weights: every bit of codes and sub-scales random, block scales such that
 * weights are about as large as `deviation`, either sign. f8_e4m3 leaves out its two NaN codes.
 */
export function randomBlocks(
  format: FormatName,
  rows: number,
  columns: number,
  seed: number,
  deviation = 0.5,
): Uint8Array {
  const codec = quantFormat(format);
  const bytes = new Uint8Array(rowBytes(codec, columns) * rows);
  if (codec.encodeRow && codec.blockSize === 1) {
    const values = randomFloats(rows * columns, seed, deviation);
    for (let r = 0; r < rows; r++) {
      const size = rowBytes(codec, columns);
      codec.encodeRow(values.subarray(r * columns, (r + 1) * columns), bytes.subarray(r * size, (r + 1) * size));
    }
    return bytes;
  }
  const next = random(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = next() * 256;
  if (format === 'f8_e4m3') return bytes.map((code) => ((code & 0x7f) === 0x7f ? code ^ 1 : code));
  for (let block = 0; block < bytes.length; block += codec.blockBytes) {
    const half = (size: number) => f32ToF16((0.5 + next()) * 2 * deviation * size * (next() < 0.5 ? -1 : 1));
    for (const { at, size } of HALVES[format] ?? []) {
      const bits = half(size);
      bytes[block + at] = bits;
      bytes[block + at + 1] = bits >> 8;
    }
    // mxfp4 has an exponent, largest level 6; iq1_m keeps its scale in the top nibbles of four words.
    if (format === 'mxfp4') bytes[block] = 127 + Math.round(Math.log2(deviation / 3) + next() - 0.5);
    if (format === 'iq1_m') {
      const bits = half(1 / 17);
      for (let i = 0; i < 4; i++) {
        const at = block + 49 + 2 * i;
        bytes[at] = (bytes[at] & 15) | (((bits >> (4 * i)) & 15) << 4);
      }
    }
  }
  return bytes;
}

/** What the largest code of a format with scales apart is worth beside its usual one. */
const LARGEST: Partial<Record<FormatName, number>> = { f8_e4m3: 100, int4_g32: 8, mxfp4_g32: 3 };

/** Scales of a matrix whose format has them apart, such that weights are about as large as `deviation`; as stored. */
export function randomScales(
  format: FormatName,
  rows: number,
  columns: number,
  seed: number,
  deviation = 0.5,
): Float32Array {
  const next = random(seed);
  const block = quantFormat(format).scaleBlock!;
  const count = Math.ceil(rows / block.rows) * Math.ceil(columns / block.columns);
  const scales = Float32Array.from({ length: count }, () => (deviation * (0.5 + next())) / LARGEST[format]!);
  return decodeScales(block.type, encodeScales(block.type, scales));
}
