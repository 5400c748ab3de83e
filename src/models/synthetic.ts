/**
 * Models without weights: from a `config.json` to the list of tensors that its checkpoint has. The list is what the
 * architecture itself asks for, so it cannot drift from the code that reads real files.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import type { Weight } from '../program/tensor.ts';
import { ConfigReader } from './config-reader.ts';
import type { BaseConfig, ModelDefinition } from './define-model.ts';
import { expertBiasNames, expertNames, type Projection, tensorName } from './gguf-names.ts';
import { Graph } from './graph.ts';
import { identifyModel } from './index.ts';
import { type MixContext, mixFormat, type QuantMix } from './quant-mix.ts';
import type { WeightFinder } from './weights.ts';

/** A parsed `config.json`. */
export type HuggingFaceConfig = Readonly<Record<string, unknown>>;

/** A weight of the architecture, in no container's words. */
export interface LogicalWeight {
  /** Hugging Face path; for experts the module's. */
  readonly path: string;
  readonly projection?: Projection;
  /** The biases of the experts' projection, [E, N]. */
  readonly bias?: boolean;
  readonly shape: readonly number[];
}

/** A tensor of a checkpoint: in a format of weights, or of another type. */
interface ListedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: FormatName | RawType;
}

/** Bytes of an element of the types in which packed weights come. */
const RAW_TYPES = { u8: 1, i32: 4 } as const;
type RawType = keyof typeof RAW_TYPES;

export interface SyntheticTensor {
  readonly name: string;
  /** Row-major, outermost dimension first. */
  readonly shape: readonly number[];
  readonly format: FormatName;
}

export interface SyntheticModel {
  readonly model: ModelDefinition;
  readonly config: BaseConfig;
  readonly weights: readonly LogicalWeight[];
}

/** Grants every wish and writes it down. */
class WishedWeights implements WeightFinder {
  readonly kind = 'huggingface';
  readonly weights: Weight[] = [];
  readonly wishes: LogicalWeight[] = [];
  readonly #tied: boolean;

  constructor(config: HuggingFaceConfig) {
    this.#tied = config.tie_word_embeddings === true;
  }

  has(path: string): boolean {
    if (path === 'lm_head.weight') return !this.#tied;
    return !path.endsWith('.bias'); // those that are demanded are granted all the same
  }

  find(path: string, shape: readonly number[]): Weight {
    return this.weights.find((weight) => weight.name === path) ?? this.#wish({ path, shape });
  }

  findOptional(path: string, shape: readonly number[]): Weight | undefined {
    return this.has(path) ? this.find(path, shape) : undefined;
  }

  findExperts(path: string, projection: Projection, shape: readonly [number, number, number]): Weight {
    return this.#wish({ path, projection, shape });
  }

  findExpertBias(path: string, projection: Projection, shape: readonly [number, number]): Weight {
    const weight = this.#wish({ path, projection, bias: true, shape });
    return { ...weight, shape: [...shape, 1] };
  }

  #wish(wish: LogicalWeight): Weight {
    this.wishes.push(wish);
    const weight: Weight = {
      id: this.weights.length,
      name: wish.path,
      shape: wish.shape,
      format: 'f32',
      parts: [wish.path],
    };
    this.weights.push(weight);
    return weight;
  }
}

/** What a model of this description is made of. Same errors as `buildProgram`. */
export async function syntheticModel(config: HuggingFaceConfig): Promise<SyntheticModel> {
  const checkpoint = headerOnly('huggingface', 'config.json', [], { config });
  const model = identifyModel(checkpoint);
  const typed = await model.config(new ConfigReader(checkpoint, String(config.model_type)));
  const weights = new WishedWeights(config);
  model.build(new Graph(weights), typed);
  return { model, config: typed, weights: weights.wishes };
}

/** The tensors of a GGUF file of that model: fused experts, `kv_b` whole. */
export function ggufTensors(synthetic: SyntheticModel, config: HuggingFaceConfig, mix: QuantMix): SyntheticTensor[] {
  const context = mixContext(synthetic, config);
  return synthetic.weights.map(({ path, projection, bias, shape }) => {
    const name =
      projection === undefined
        ? tensorName('gguf', path, synthetic.model.ggufNames)
        : (bias ? expertBiasNames : expertNames)('gguf', path, projection)[0];
    return { name, shape, format: mixFormat(mix, name, shape, context) };
  });
}

function mixContext({ config: typed, weights }: SyntheticModel, config: HuggingFaceConfig): MixContext {
  const heads = Number(config.num_attention_heads);
  return {
    layers: typed.layers,
    experts: weights.find((weight) => weight.projection !== undefined)?.shape[0] ?? 0,
    groupSize: heads / Number(config.num_key_value_heads ?? heads),
    tied: config.tie_word_embeddings === true,
  };
}

export interface FolderOptions {
  /** Matrices inside the layers are e4m3 with block scales: as DeepSeek-V3 (f32) and Qwen3 (bf16) are published. */
  readonly fp8?: 'f32' | 'bf16';
  /** Experts are packed INT4, as Kimi-K2-Thinking is published. */
  readonly int4?: boolean;
}

/** The tensors of a Hugging Face folder of that model, one per expert, all bf16 unless asked; gpt-oss has its own MXFP4. */
export function huggingFaceTensors(synthetic: SyntheticModel, options: FolderOptions = {}): ListedTensor[] {
  const tensors: ListedTensor[] = [];
  const add = (name: string, shape: readonly number[]) => {
    const quantized = options.fp8 && shape.length === 2 && name.includes('.layers.') && !name.includes('.gate.');
    if (!quantized) {
      tensors.push({ name, shape, format: name.endsWith('_correction_bias') ? 'f32' : 'bf16' });
      return;
    }
    const block = quantFormat('f8_e4m3').scaleBlock!;
    const blocks = [Math.ceil(shape[0] / block.rows), Math.ceil(shape[1] / block.columns)];
    tensors.push(
      { name, shape, format: 'f8_e4m3' },
      { name: `${name}_scale_inv`, shape: blocks, format: options.fp8! },
    );
  };
  for (const { path, projection, bias, shape } of synthetic.weights) {
    if (projection === undefined) {
      add(path, shape);
      continue;
    }
    if (synthetic.model.name === 'gpt-oss') {
      tensors.push(...gptOssTensors(path, projection, shape, bias));
      continue;
    }
    const mixtral = path.includes('block_sparse_moe');
    const pattern = expertNames('huggingface', path, projection)[mixtral ? 1 : 0];
    for (let e = 0; e < shape[0]; e++) {
      const name = pattern.replace('{e}', String(e));
      if (options.int4) tensors.push(...packedTensors(name, shape.slice(1)));
      else add(name, shape.slice(1));
    }
  }
  return tensors;
}

/** compressed-tensors: eight codes a word, a scale per 32 columns. */
function packedTensors(name: string, [rows, columns]: readonly number[]): ListedTensor[] {
  return [
    { name: `${name}_packed`, shape: [rows, columns / 8], format: 'i32' },
    { name: `${name}_scale`, shape: [rows, columns / 32], format: 'bf16' },
    { name: `${name}_shape`, shape: [2], format: 'i32' },
  ];
}

/** Experts of gpt-oss: gate and up in one tensor, its rows in turn; blocks and scales apart. */
function gptOssTensors(path: string, projection: Projection, shape: readonly number[], bias?: boolean): ListedTensor[] {
  if (projection === 'up') return [];
  const [experts, own, columns] = shape;
  const [name, rows] = projection === 'gate' ? [`${path}.gate_up_proj`, 2 * own] : [`${path}.down_proj`, own];
  if (bias) return [{ name: `${name}_bias`, shape: [experts, rows], format: 'bf16' }];
  return [
    { name: `${name}_blocks`, shape: [experts, rows, columns / 32, 16], format: 'u8' },
    { name: `${name}_scales`, shape: [experts, rows, columns / 32], format: 'u8' },
  ];
}

/** Bytes of an element. */
function bytesOf(format: FormatName | RawType): number {
  if (format === 'u8' || format === 'i32') return RAW_TYPES[format];
  const { blockSize, blockBytes } = quantFormat(format);
  return blockBytes / blockSize;
}

/** A checkpoint of headers: enough to build, print and plan a Program. `read` gives the bytes where some are needed. */
export function headerOnly(
  kind: Checkpoint['kind'],
  name: string,
  tensors: readonly ListedTensor[],
  rest: Partial<Pick<Checkpoint, 'config' | 'metadata'>> & { read?: (tensor: string) => Promise<Uint8Array> },
): Checkpoint {
  let offset = 0;
  const entries = tensors.map((tensor) => {
    const elements = tensor.shape.reduce((product, length) => product * length, 1);
    const bytes = elements * bytesOf(tensor.format);
    const info = { ...tensor, file: 0, offset, bytes };
    offset += Math.ceil(bytes / 32) * 32;
    return [tensor.name, info] as const;
  });
  const refuse = async () => {
    throw new TandemError('FILE_IO', { room: 'models', rule: `${name} is a description without weight data` });
  };
  return {
    kind,
    name,
    files: [],
    tensors: new Map(entries),
    metadata: rest.metadata ?? new Map(),
    config: rest.config,
    readTensor: rest.read ?? refuse,
    close: async () => {},
  };
}
