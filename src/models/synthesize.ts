/**
 * Random weights in every format, for files with a true model's shapes. Blocks are random bits with scales set so that
 * the values have a wanted root mean square: rows map inputs of size 1 to outputs of size 1, so logits stay finite and
 * routers spread their load. The same seed gives the same bytes.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { FormatName } from '../formats/dtype.ts';
import type { GgufTensor } from '../formats/gguf-writer.ts';
import { quantFormat } from '../formats/quants/index.ts';
import type { BaseConfig } from './define-model.ts';
import { llama3Frequency, ropeFrequencies } from './layers/rope.ts';
import type { LlamaConfig } from './llama.ts';
import type { QuantMix } from './quant-mix.ts';
import { ggufTensors, type HuggingFaceConfig, headerOnly, type SyntheticTensor, syntheticModel } from './synthetic.ts';
import { ggufMetadata, type Metadata, plainMetadata } from './synthetic-metadata.ts';
import { ROPE_FACTORS } from './weights.ts';

/** Bytes of a chunk, about. */
const CHUNK = 1 << 20;

export interface SynthesizeOptions {
  /** `general.name`. */
  readonly name: string;
  readonly mix: QuantMix;
  readonly seed?: number;
}

export interface SyntheticContent {
  readonly metadata: Metadata;
  readonly tensors: (GgufTensor & SyntheticTensor)[];
}

/** What `writeGguf` takes: metadata with a tokenizer, and tensors that make their bytes when asked. */
export async function synthesize(config: HuggingFaceConfig, options: SynthesizeOptions): Promise<SyntheticContent> {
  const { name, mix, seed = 1 } = options;
  const model = await syntheticModel(config);
  const tensors: SyntheticContent['tensors'] = ggufTensors(model, config, mix).map((tensor) => ({
    ...tensor,
    data: () => randomTensor(tensor, seed),
  }));
  const factors = ropeFactorTensor(model.config);
  if (factors !== undefined) tensors.push(factors);
  return { metadata: ggufMetadata(name, model, mix), tensors };
}

/** The same model as a checkpoint without a file: its headers, and the bytes of any tensor when asked. */
export async function headerCheckpoint(config: HuggingFaceConfig, options: SynthesizeOptions): Promise<Checkpoint> {
  const { metadata, tensors } = await synthesize(config, options);
  const read = async (name: string) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of tensors.find((tensor) => tensor.name === name)!.data()) chunks.push(chunk.slice());
    const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  };
  return headerOnly('gguf', options.name, tensors, { metadata: plainMetadata(metadata), read });
}

/** Llama 3's bands as GGUF has them: divisors of the plain frequencies. undefined for other models. */
export function ropeFactorTensor(config: BaseConfig): (GgufTensor & SyntheticTensor) | undefined {
  const { attention } = config as Partial<LlamaConfig>;
  const scaling = attention?.rope.scaling;
  if (attention === undefined || scaling?.type !== 'llama3') return undefined;
  const plain = ropeFrequencies(attention.headSize, { base: attention.rope.base, scaling: { type: 'none' } });
  const factors = Float32Array.from(plain.frequencies, (frequency) => frequency / llama3Frequency(frequency, scaling));
  const data = () => [new Uint8Array(factors.slice().buffer)];
  return { name: ROPE_FACTORS, shape: [factors.length], format: 'f32', data };
}

/** The bytes of one tensor, chunk by chunk; a chunk is valid until the next. */
export function* randomTensor({ name, shape, format }: SyntheticTensor, seed: number): Generator<Uint8Array> {
  const columns = shape[shape.length - 1];
  const elements = shape.reduce((product, length) => product * length, 1);
  // Norms are about 1, biases small; a table of embeddings has rows of size 1.
  if (shape.length === 1) {
    yield vector(elements, name.endsWith('norm.weight') ? 1 : 0, seedOf(name, seed));
    return;
  }
  const rms = name.startsWith('token_embd') ? 1 : gain(name) * columns ** -0.5;
  const { blockSize, blockBytes } = quantFormat(format);
  const blocksPerChunk = Math.floor(CHUNK / blockBytes / 2) * 2;
  const words = new Uint32Array((blocksPerChunk * blockBytes) / 4);
  const bytes = new Uint8Array(words.buffer);
  const finish = finisher(format, rms);
  const random = new Random(seedOf(name, seed));
  for (let left = elements / blockSize; left > 0; left -= blocksPerChunk) {
    random.fill(words);
    finish(words);
    yield bytes.subarray(0, Math.min(left, blocksPerChunk) * blockBytes);
  }
}

/**
 * How an input of size 1 grows. What a layer adds is small beside the embedding (rows of size 1), so that tokens stay
 * apart and go to different experts in the last layer too.
 */
function gain(name: string): number {
  return /\.(attn_output|ffn_down)/.test(name) ? 0.25 : 1;
}

function vector(length: number, center: number, seed: number): Uint8Array {
  const words = new Uint32Array(length);
  new Random(seed).fill(words);
  return new Uint8Array(Float32Array.from(words, (word) => center + (word / 2 ** 32 - 0.5) / 8).buffer);
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
const SCALES: Partial<Record<FormatName, readonly (readonly [offset: number, factor: number])[]>> = {
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
};

/** Formats that `randomTensor` makes. */
export const SYNTHETIC_FORMATS = ['f32', 'f16', 'bf16', ...Object.keys(SCALES)] as readonly FormatName[];

/** Turns random words into blocks of a format whose values have that root mean square. */
function finisher(format: FormatName, rms: number): (words: Uint32Array) => void {
  if (format === 'f32' || format === 'bf16' || format === 'f16') return floatFinisher(format, rms);
  if (SCALES[format] === undefined) {
    throw new TandemError('FORMAT_UNSUPPORTED', {
      room: 'models',
      rule: `random weights are made in ${SYNTHETIC_FORMATS.join(', ')}`,
      given: `${format} was asked for`,
    });
  }
  const scale = rms / unitRms(format);
  return (words) => setScales(format, words, scale);
}

function setScales(format: FormatName, words: Uint32Array, scale: number): void {
  const halves = new Uint16Array(words.buffer);
  const stride = quantFormat(format).blockBytes / 2;
  for (const [offset, factor] of SCALES[format]!) {
    const bits = halfBits(scale * factor);
    for (let i = offset / 2; i < halves.length; i += stride) halves[i] = bits;
  }
}

/** Root mean square of random blocks with scale 1, measured by decoding some. */
function unitRms(format: FormatName): number {
  const quant = quantFormat(format);
  const blocks = 128;
  const words = new Uint32Array((quant.blockBytes * blocks) / 4);
  new Random(1).fill(words);
  setScales(format, words, 1);
  const values = new Float32Array(quant.blockSize * blocks);
  quant.decodeRow(new Uint8Array(words.buffer), values);
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

function halfBits(value: number): number {
  const bytes = new Uint8Array(2);
  quantFormat('f16').encodeRow!(Float32Array.of(value), bytes);
  return bytes[0] | (bytes[1] << 8);
}

/** Random sign and mantissa, one exponent: magnitudes even over [2^e, 2^(e+1)), root mean square 1.53 · 2^e. */
function floatFinisher(format: 'f32' | 'bf16' | 'f16', rms: number): (words: Uint32Array) => void {
  const exponent = Math.round(Math.log2(rms / 1.53));
  if (format === 'f32') {
    const bits = (exponent + 127) << 23;
    return (words) => {
      for (let i = 0; i < words.length; i++) words[i] = (words[i] & 0x807fffff) | bits;
    };
  }
  const [mask, bits] = format === 'bf16' ? [0x807f, (exponent + 127) << 7] : [0x83ff, (exponent + 15) << 10];
  return (words) => {
    const halves = new Uint16Array(words.buffer);
    for (let i = 0; i < halves.length; i++) halves[i] = (halves[i] & mask) | bits;
  };
}
