/**
 * Random weights in every format. Blocks are random bits with scales set so that the values have a wanted root mean
 * square: rows map inputs of size 1 to outputs of size 1, so logits stay finite and routers spread their load. The same
 * seed gives the same bytes.
 */
import type { FormatName, ScaleType } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import type { SyntheticTensor } from './synthetic.ts';

/** Bytes of a chunk, about. */
const CHUNK = 1 << 20;

/** The bytes of one tensor, chunk by chunk; a chunk is valid until the next. */
export function* randomTensor({ name, shape, format }: SyntheticTensor, seed: number): Generator<Uint8Array> {
  const columns = shape[shape.length - 1];
  const elements = shape.reduce((product, length) => product * length, 1);
  // Norms are about 1, biases small; a table of embeddings has rows of size 1.
  if (shape.length === 1) {
    yield vector(elements, /norm\d?\.weight$/.test(name) ? 1 : 0, seedOf(name, seed), format);
    return;
  }
  const { blockSize, blockBytes } = quantFormat(format);
  const blocksPerChunk = Math.floor(CHUNK / blockBytes / 4) * 4; // whole words
  const words = new Uint32Array((blocksPerChunk * blockBytes) / 4);
  const bytes = new Uint8Array(words.buffer);
  const finish = finisher(format, rmsOf(name, columns));
  const random = new Random(seedOf(name, seed));
  for (let left = elements / blockSize; left > 0; left -= blocksPerChunk) {
    random.fill(words);
    finish(bytes);
    yield bytes.subarray(0, Math.min(left, blocksPerChunk) * blockBytes);
  }
}

/** The scales of a tensor whose format keeps them in one of their own, for `randomTensor` of the same name; all alike. */
export function* randomScales({ name, shape, format }: SyntheticTensor): Generator<Uint8Array> {
  const { scaleBlock } = quantFormat(format);
  if (scaleBlock === undefined) return;
  const [rows, columns] = shape.slice(-2);
  const matrices = shape.slice(0, -2).reduce((product, length) => product * length, 1);
  const count = matrices * Math.ceil(rows / scaleBlock.rows) * Math.ceil(columns / scaleBlock.columns);
  const one = scaleBytes(scaleBlock.type, rmsOf(name, columns) / unitRms(format));
  const chunk = new Uint8Array(one.length * Math.min(count, CHUNK));
  for (let at = 0; at < chunk.length; at += one.length) chunk.set(one, at);
  for (let left = count * one.length; left > 0; left -= chunk.length)
    yield chunk.subarray(0, Math.min(left, chunk.length));
}

function scaleBytes(type: ScaleType, scale: number): Uint8Array {
  if (type === 'e8m0') return Uint8Array.of(exponentOf(scale));
  const bytes = new Uint8Array(Float32Array.of(scale).buffer);
  return type === 'f32' ? bytes : bytes.subarray(2); // bf16: its upper half
}

/** Of the nearest power of two, as e8m0 has it. */
function exponentOf(scale: number): number {
  return Math.max(0, Math.min(254, 127 + Math.round(Math.log2(scale))));
}

function rmsOf(name: string, columns: number): number {
  if (name.startsWith('token_embd') || name.includes('embed_tokens')) return 1;
  return name.endsWith('bias') ? 2 ** -6 : gain(name) * columns ** -0.5;
}

/**
 * How an input of size 1 grows. What a layer adds is small beside the embedding (rows of size 1), so that tokens stay
 * apart and go to different experts in the last layer too.
 */
function gain(name: string): number {
  return /\.(attn_output|ffn_down|o_proj|down_proj|w2)/.test(name) ? 0.25 : 1;
}

function vector(length: number, center: number, seed: number, format: FormatName): Uint8Array {
  const words = new Uint32Array(length);
  new Random(seed).fill(words);
  const quant = quantFormat(format);
  const bytes = new Uint8Array(length * quant.blockBytes);
  quant.encodeRow!(
    Float32Array.from(words, (word) => center + (word / 2 ** 32 - 0.5) / 8),
    bytes,
  );
  return bytes;
}

/** xorshift128: fast, and good enough for weights that mean nothing. */
class Random {
  #a: number;
  #b = 0x9e3779b9;
  #c = 0x243f6a88;
  #d = 0xb7e15162;

  constructor(seed: number) {
    this.#a = seed | 0;
    this.fill(new Uint32Array(16));
  }

  fill(words: Uint32Array): void {
    let [a, b, c, d] = [this.#a, this.#b, this.#c, this.#d];
    for (let i = 0; i < words.length; i++) {
      let t = d;
      d = c;
      c = b;
      b = a;
      t ^= t << 11;
      t ^= t >>> 8;
      a = t ^ a ^ (a >>> 19);
      words[i] = a;
    }
    [this.#a, this.#b, this.#c, this.#d] = [a, b, c, d];
  }
}

/** FNV-1a of the name, so that a tensor's bytes do not depend on its place in the file. */
function seedOf(name: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash;
}

/** Where the f16 scales of a block are (byte offset), relative to its main scale. A minimum centres the values. */
const HALVES: Partial<Record<FormatName, readonly (readonly [offset: number, factor: number])[]>> = {
  q8_0: [[0, 1]],
  q4_0: [[0, 1]],
  q5_0: [[0, 1]],
  iq4_nl: [[0, 1]],
  q4_1: [
    [0, 1],
    [2, -7.5],
  ],
  q5_1: [
    [0, 1],
    [2, -15.5],
  ],
  q2_k: [
    [80, 1],
    [82, 1.5],
  ],
  q3_k: [[108, 1]],
  q4_k: [
    [0, 1],
    [2, 7.5],
  ],
  q5_k: [
    [0, 1],
    [2, 15.5],
  ],
  q6_k: [[208, 1]],
  iq4_xs: [[0, 1]],
  iq1_s: [[0, 1]],
  iq2_xxs: [[0, 1]],
  iq2_xs: [[0, 1]],
  iq2_s: [[0, 1]],
  iq3_xxs: [[0, 1]],
  iq3_s: [[0, 1]],
};

/** Turns random bytes into blocks of a format whose values, with its scales where they lie apart, have that size. */
function finisher(format: FormatName, rms: number): (bytes: Uint8Array) => void {
  if (format === 'f32' || format === 'bf16' || format === 'f16') return floatFinisher(format, rms);
  if (quantFormat(format).scaleBlock) return (bytes) => setScales(format, bytes, 1);
  const scale = rms / unitRms(format);
  return (bytes) => setScales(format, bytes, scale);
}

function setScales(format: FormatName, bytes: Uint8Array, scale: number): void {
  const stride = quantFormat(format).blockBytes;
  for (const [offset, factor] of HALVES[format] ?? []) {
    const bits = halfBits(scale * factor);
    for (let at = offset; at < bytes.length; at += stride) {
      bytes[at] = bits;
      bytes[at + 1] = bits >> 8;
    }
  }
  if (format === 'mxfp4') {
    const exponent = exponentOf(scale);
    for (let at = 0; at < bytes.length; at += stride) bytes[at] = exponent;
  } else if (format === 'iq1_m') {
    // The four nibbles of the scale are the upper ones of four words of sub-scales.
    const bits = halfBits(scale);
    for (let at = 49; at < bytes.length; at += stride)
      for (let i = 0; i < 4; i++) bytes[at + 2 * i] = (bytes[at + 2 * i] & 15) | (((bits >> (4 * i)) & 15) << 4);
  } else if (format === 'f8_e4m3') {
    // All bits set but the sign would be NaN.
    for (let at = 0; at < bytes.length; at++) if ((bytes[at] & 0x7f) === 0x7f) bytes[at] ^= 1;
  }
}

/** Root mean square of random blocks with scale 1, measured by decoding some. */
function unitRms(format: FormatName): number {
  const quant = quantFormat(format);
  const count = 128 * Math.max(32, quant.blockSize);
  const words = new Uint32Array(((count / quant.blockSize) * quant.blockBytes) / 4);
  new Random(1).fill(words);
  const bytes = new Uint8Array(words.buffer);
  setScales(format, bytes, 1);
  const values = new Float32Array(count);
  const { columns } = quant.scaleBlock ?? {};
  quant.decodeRow(bytes, values, columns === undefined ? undefined : new Float32Array(count / columns).fill(1));
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

function halfBits(value: number): number {
  const bytes = new Uint8Array(2);
  quantFormat('f16').encodeRow!(Float32Array.of(value), bytes);
  return bytes[0] | (bytes[1] << 8);
}

/** Random sign and mantissa, one exponent: magnitudes even over [2^e, 2^(e+1)), root mean square 1.53 · 2^e. */
function floatFinisher(format: 'f32' | 'bf16' | 'f16', rms: number): (bytes: Uint8Array) => void {
  const exponent = Math.round(Math.log2(rms / 1.53));
  if (format === 'f32') {
    const bits = (exponent + 127) << 23;
    return ({ buffer }) => {
      const words = new Uint32Array(buffer);
      for (let i = 0; i < words.length; i++) words[i] = (words[i] & 0x807fffff) | bits;
    };
  }
  const [mask, bits] = format === 'bf16' ? [0x807f, (exponent + 127) << 7] : [0x83ff, (exponent + 15) << 10];
  return ({ buffer }) => {
    const halves = new Uint16Array(buffer);
    for (let i = 0; i < halves.length; i++) halves[i] = (halves[i] & mask) | bits;
  };
}
