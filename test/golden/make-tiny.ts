/**
 * Tiny random models in memory: the same numbers in every container and layout that public files use, so that what
 * the layouts promise to be equal can be compared.
 */
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { type FormatName, rowBytes } from '../../src/formats/dtype.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { type GgufTensor, writeGguf } from '../../src/formats/gguf-writer.ts';
import { openHuggingFace } from '../../src/formats/huggingface.ts';
import { memoryFolder } from '../../src/formats/memory-source.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import type { SinkFolder } from '../../src/formats/sink.ts';
import { expertBiasNames, expertNames, gateUpNames, tensorName } from '../../src/models/gguf-names.ts';
import { INT4_GROUP_32 } from '../../src/models/public-configs.ts';
import { ropeFactorTensor } from '../../src/models/synthesize.ts';
import { type HuggingFaceConfig, type LogicalWeight, syntheticModel } from '../../src/models/synthetic.ts';
import { ggufMetadata } from '../../src/models/synthetic-metadata.ts';
import { type PackedFormat, pack, packedTensors, part } from './pack.ts';

/** Row-major f32 values of a logical weight. */
interface Filled extends LogicalWeight {
  readonly values: Float32Array;
}

export interface TinyOptions {
  /** Experts hold values of this format, and so may be stored in it; gpt-oss: mxfp4_g32 always. */
  readonly experts?: PackedFormat;
}

export interface GgufLayout {
  /** Expert tensors in one, (older files) each for itself, (newer ones) gate above up in one, or in one of MXFP4. */
  readonly experts?: 'fused' | 'each' | 'gate-up' | 'mxfp4';
  /** `kv_b` in one, or (newer files) split, with the head sizes under `…_mla`. */
  readonly kvB?: 'whole' | 'split';
  /** false: nothing about groups of experts, as in public files of DeepSeek-V3 and R1. */
  readonly groupKeys?: boolean;
}

export interface HuggingFaceLayout {
  readonly packed?: boolean;
  readonly fused?: boolean;
}

export interface TinyModel {
  /** The bytes of the file. */
  ggufFile(layout?: GgufLayout): Promise<Uint8Array>;
  gguf(layout?: GgufLayout): Promise<Checkpoint>;
  /**
   * `packed`: experts in the format of the model's options; gpt-oss always, unless `fused`: bf16 column by column, as
   * transformers writes it. Others `fused`: a layer's experts in one tensor, gate above up.
   */
  huggingFace(layout?: HuggingFaceLayout): Promise<Checkpoint>;
}

export async function tinyModel(config: HuggingFaceConfig, seed = 1, options: TinyOptions = {}): Promise<TinyModel> {
  const synthetic = await syntheticModel(config);
  const isGptOss = synthetic.model.name === 'gpt-oss';
  const format = isGptOss ? 'mxfp4_g32' : options.experts;
  const random = normal(seed);
  const weights: Filled[] = synthetic.weights.map((weight) => {
    const values = new Float32Array(product(weight.shape));
    const [center, size] = scaleOf(weight);
    for (let i = 0; i < values.length; i++) values[i] = center + size * random();
    if (format && weight.projection && !weight.bias)
      perExpert({ ...weight, values }, (e, own) => {
        values.set(pack(format, own, weight.shape[2]).values, e * own.length);
      });
    return { ...weight, values };
  });
  const heads = { q: Number(config.num_attention_heads), k: Number(config.num_key_value_heads) };

  async function ggufFile({
    experts = 'fused',
    kvB = 'whole',
    groupKeys = true,
  }: GgufLayout = {}): Promise<Uint8Array> {
    const metadata = ggufMetadata('tiny', synthetic, 'f32');
    const tensors: GgufTensor[] = [];
    const add = (name: string, shape: readonly number[], values: Float32Array) =>
      tensors.push({ name, shape, format: 'f32', data: () => [new Uint8Array(values.slice().buffer)] });
    for (const weight of weights) {
      const { path, projection, bias, shape, values } = weight;
      if (bias) {
        add(expertBiasNames('gguf', path, projection!)[0], shape, values);
      } else if (projection !== undefined) {
        const [fused, each] = expertNames('gguf', path, projection);
        const [both] = experts === 'gate-up' ? gateUpNames('gguf', path, projection) : [];
        if (both !== undefined) {
          if (projection === 'gate') add(both, [shape[0], 2 * shape[1], shape[2]], gateUp(weight, weights));
        } else if (experts === 'mxfp4') {
          tensors.push({ name: fused, shape, format: 'mxfp4', data: () => [encoded('mxfp4', values, shape[2])] });
        } else if (experts !== 'each') add(fused, shape, values);
        else perExpert(weight, (e, part) => add(each.replace('{e}', String(e)), shape.slice(1), part));
      } else if (kvB === 'split' && path.endsWith('kv_b_proj.weight')) {
        const { k, v } = splitKvB(weight, config);
        add(tensorName('gguf', path.replace('kv_b', 'k_b')), k.shape, k.values);
        add(tensorName('gguf', path.replace('kv_b', 'v_b')), v.shape, v.values);
      } else {
        const turned = synthetic.model.name === 'llama' && /\.self_attn\.([qk])_proj\./.exec(path);
        const moved = turned ? pairs(values, shape, heads[turned[1] as 'q' | 'k']) : values;
        add(tensorName('gguf', path, synthetic.model.ggufNames), shape, moved);
      }
    }
    const factors = ropeFactorTensor(synthetic.config);
    if (factors) tensors.push(factors);
    if (kvB === 'split') {
      const rope = Number(config.qk_rope_head_dim);
      const latent = Number(config.kv_lora_rank);
      const sizes = {
        head_count_kv: 1,
        key_length: latent + rope,
        value_length: latent,
        key_length_mla: Number(config.qk_nope_head_dim) + rope,
        value_length_mla: Number(config.v_head_dim),
      };
      for (const [key, value] of Object.entries(sizes))
        metadata.set(`deepseek2.attention.${key}`, { type: 'u32', value });
    }
    if (!groupKeys) for (const key of metadata.keys()) if (key.includes('.expert_group_')) metadata.delete(key);
    const sink = new MemorySink();
    await writeGguf(sink, 'tiny.gguf', { metadata, tensors });
    return sink.files['tiny.gguf'];
  }

  async function gguf(layout?: GgufLayout): Promise<Checkpoint> {
    return openGguf(memoryFolder({ 'tiny.gguf': await ggufFile(layout) }), 'tiny.gguf');
  }

  async function huggingFace({ packed = false, fused = false }: HuggingFaceLayout = {}): Promise<Checkpoint> {
    const tensors = new Map<string, StoredTensor>();
    const add = (name: string, shape: readonly number[], values: Float32Array) =>
      tensors.set(name, { dtype: 'F32', shape, bytes: new Uint8Array(values.slice().buffer) });
    const addPacked = (name: string, shape: readonly number[], values: Float32Array) => {
      const columns = shape[shape.length - 1];
      const matrices = shape.length === 3 ? shape[0] : 1;
      const packs = Array.from({ length: matrices }, (_, e) => pack(format!, part(values, matrices, e), columns));
      const [own, scale] = packedTensors(name, format!, shape.slice(0, -1), columns);
      for (const [[tensor, dtype, size], bytes] of [
        [own, packs.map(({ codes }) => codes)],
        [scale, packs.map(({ scales }) => scales)],
      ] as const)
        tensors.set(tensor, { dtype, shape: size, bytes: Buffer.concat(bytes) });
    };
    for (const weight of weights) {
      const { path, projection, bias, shape, values } = weight;
      if (projection === undefined) {
        add(path, shape, values);
        continue;
      }
      if (isGptOss) {
        if (projection === 'up') continue;
        const name = projection === 'down' ? `${path}.down_proj` : `${path}.gate_up_proj`;
        const all = projection === 'down' ? values : inTurn(weight, weights);
        const size = projection === 'down' ? shape : [shape[0], 2 * shape[1], ...shape.slice(2)];
        if (bias) add(`${name}_bias`, size, all);
        else if (fused) tensors.set(name, byColumns(size, all));
        else addPacked(name, size, all);
        continue;
      }
      if (fused) {
        const store = packed ? addPacked : add;
        if (projection === 'down') store(`${path}.down_proj`, shape, values);
        if (projection === 'gate')
          store(`${path}.gate_up_proj`, [shape[0], 2 * shape[1], shape[2]], gateUp(weight, weights));
        continue;
      }
      const pattern = expertNames('huggingface', path, projection)[path.includes('block_sparse_moe') ? 1 : 0];
      perExpert(weight, (e, part) =>
        (packed ? addPacked : add)(pattern.replace('{e}', String(e)), shape.slice(1), part),
      );
    }
    const described = packed && format === 'int4_g32' ? { ...config, quantization_config: INT4_GROUP_32 } : config;
    const files = { 'config.json': JSON.stringify(described), 'model.safetensors': safetensors(tensors) };
    return openHuggingFace(memoryFolder(files));
  }
  return { ggufFile, gguf, huggingFace };
}

function product(shape: readonly number[]): number {
  return shape.reduce((all, length) => all * length, 1);
}

/** Centre and size of a weight's values. Biases are large enough that forgetting them shows. */
function scaleOf({ path, shape, bias }: LogicalWeight): [center: number, size: number] {
  if (path.endsWith('sinks')) return [1, 2];
  if (bias) return [0, 3]; // some beyond the limit of a clamped activation
  if (shape.length === 1) return path.endsWith('norm.weight') ? [1, 0.2] : [0, 0.3];
  return [0, path.includes('embed_tokens') ? 1 : 1.5 * shape[shape.length - 1] ** -0.5];
}

function perExpert({ shape, values }: Filled, each: (expert: number, values: Float32Array) => void): void {
  const size = values.length / shape[0];
  for (let e = 0; e < shape[0]; e++) each(e, values.slice(e * size, (e + 1) * size));
}

/** Rows of each head: halves (i, i + half) become neighbours (2i, 2i + 1), as GGUF's converter does for llama. */
function pairs(values: Float32Array, shape: readonly number[], heads: number): Float32Array {
  const columns = shape[1] ?? 1;
  const size = shape[0] / heads;
  const moved = new Float32Array(values.length);
  for (let row = 0; row < shape[0]; row++) {
    const [head, within] = [Math.floor(row / size), row % size];
    const target = head * size + (within < size / 2 ? 2 * within : 2 * (within - size / 2) + 1);
    moved.set(values.subarray(row * columns, (row + 1) * columns), target * columns);
  }
  return moved;
}

/** kv_b [H·(nope+v), L] → k_b [H, L, nope] (transposed per head) and v_b [H, v, L]. */
function splitKvB({ values }: Filled, config: HuggingFaceConfig) {
  const [heads, nope, value, latent] = ['num_attention_heads', 'qk_nope_head_dim', 'v_head_dim', 'kv_lora_rank'].map(
    (key) => Number(config[key]),
  );
  const k = new Float32Array(heads * latent * nope);
  const v = new Float32Array(heads * value * latent);
  for (let h = 0; h < heads; h++) {
    const start = h * (nope + value) * latent;
    for (let n = 0; n < nope; n++)
      for (let l = 0; l < latent; l++) k[(h * latent + l) * nope + n] = values[start + n * latent + l];
    v.set(values.subarray(start + nope * latent, start + (nope + value) * latent), h * value * latent);
  }
  return { k: { shape: [heads, latent, nope], values: k }, v: { shape: [heads, value, latent], values: v } };
}

interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

function safetensors(tensors: ReadonlyMap<string, StoredTensor>): Uint8Array {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  let json = JSON.stringify(header);
  json += ' '.repeat(-json.length & 7);
  const bytes = new Uint8Array(8 + json.length + offset);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(new TextEncoder().encode(json), 8);
  let at = 8 + json.length;
  for (const tensor of tensors.values()) {
    bytes.set(tensor.bytes, at);
    at += tensor.bytes.length;
  }
  return bytes;
}

export class MemorySink implements SinkFolder {
  readonly name = 'memory';
  readonly files: Record<string, Uint8Array> = {};

  async create(file: string) {
    const parts: Uint8Array[] = [];
    return {
      name: file,
      write: async (bytes: Uint8Array) => {
        parts.push(bytes.slice());
      },
      close: async () => {
        this.files[file] = Buffer.concat(parts);
      },
      abort: async () => {},
    };
  }
}

/** Standard normal numbers from a seed: mulberry32 and Box–Muller. */
function normal(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** [E, N, K] as bf16 [E, K, N]; the values are bf16 already. */
function byColumns([experts, rows, columns]: readonly number[], values: Float32Array): StoredTensor {
  const words = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let e = 0; e < experts; e++)
    for (let n = 0; n < rows; n++)
      for (let k = 0; k < columns; k++) words[(e * columns + k) * rows + n] = bits[(e * rows + n) * columns + k] >>> 16;
  return { dtype: 'BF16', shape: [experts, columns, rows], bytes: new Uint8Array(words.buffer) };
}

/** [E, 2F, H]: each expert's gate rows, then its up rows. */
function gateUp(gate: Filled, weights: readonly Filled[]): Float32Array {
  const up = weights.find(({ path, projection }) => path === gate.path && projection === 'up')!;
  const size = gate.shape[1] * gate.shape[2];
  const both = new Float32Array(2 * gate.values.length);
  for (let e = 0; e < gate.shape[0]; e++) {
    both.set(gate.values.subarray(e * size, (e + 1) * size), 2 * e * size);
    both.set(up.values.subarray(e * size, (e + 1) * size), (2 * e + 1) * size);
  }
  return both;
}

/** [E, 2N, …]: gate and up rows in turn, as gpt-oss has its weights and biases. */
function inTurn(gate: Filled, weights: readonly Filled[]): Float32Array {
  const up = weights.find(
    ({ path, projection, bias }) => path === gate.path && projection === 'up' && bias === gate.bias,
  )!;
  const columns = gate.shape[2] ?? 1;
  const both = new Float32Array(2 * gate.values.length);
  for (let row = 0; row < gate.values.length / columns; row++) {
    both.set(gate.values.subarray(row * columns, (row + 1) * columns), 2 * row * columns);
    both.set(up.values.subarray(row * columns, (row + 1) * columns), (2 * row + 1) * columns);
  }
  return both;
}

/** The rows in a format with scales of its own. */
function encoded(format: FormatName, values: Float32Array, columns: number): Uint8Array {
  const quant = quantFormat(format);
  const size = rowBytes(quant, columns);
  const bytes = new Uint8Array((values.length / columns) * size);
  for (let r = 0; r * columns < values.length; r++)
    quant.encodeRow!(values.subarray(r * columns, (r + 1) * columns), bytes.subarray(r * size, (r + 1) * size));
  return bytes;
}
