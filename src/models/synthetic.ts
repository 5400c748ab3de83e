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
import { expertNames, type Projection, tensorName } from './gguf-names.ts';
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
  readonly shape: readonly number[];
}

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
  return synthetic.weights.map(({ path, projection, shape }) => {
    const name =
      projection === undefined
        ? tensorName('gguf', path, synthetic.model.ggufNames)
        : expertNames('gguf', path, projection)[0];
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

/**
 * The tensors of a Hugging Face folder of that model, one per expert. `fp8`: matrices inside the layers are e4m3 with
 * block scales, as DeepSeek-V3 is published; else all bf16.
 */
export function huggingFaceTensors(synthetic: SyntheticModel, options: { fp8?: boolean } = {}): SyntheticTensor[] {
  const tensors: SyntheticTensor[] = [];
  const add = (name: string, shape: readonly number[]) => {
    const quantized = options.fp8 && shape.length === 2 && name.includes('.layers.') && !name.includes('.gate.');
    if (!quantized) {
      tensors.push({ name, shape, format: name.endsWith('_correction_bias') ? 'f32' : 'bf16' });
      return;
    }
    const block = quantFormat('f8_e4m3').scaleBlock!;
    const blocks = [Math.ceil(shape[0] / block.rows), Math.ceil(shape[1] / block.columns)];
    tensors.push({ name, shape, format: 'f8_e4m3' }, { name: `${name}_scale_inv`, shape: blocks, format: 'f32' });
  };
  for (const { path, projection, shape } of synthetic.weights) {
    if (projection === undefined) {
      add(path, shape);
      continue;
    }
    const mixtral = path.includes('block_sparse_moe');
    const pattern = expertNames('huggingface', path, projection)[mixtral ? 1 : 0];
    for (let e = 0; e < shape[0]; e++) add(pattern.replace('{e}', String(e)), shape.slice(1));
  }
  return tensors;
}

/** A checkpoint of headers: enough to build, print and plan a Program. `read` gives the bytes where some are needed. */
export function headerOnly(
  kind: Checkpoint['kind'],
  name: string,
  tensors: readonly SyntheticTensor[],
  rest: Partial<Pick<Checkpoint, 'config' | 'metadata'>> & { read?: (tensor: string) => Promise<Uint8Array> },
): Checkpoint {
  let offset = 0;
  const entries = tensors.map((tensor) => {
    const { blockSize, blockBytes } = quantFormat(tensor.format);
    const bytes = (tensor.shape.reduce((product, length) => product * length, 1) / blockSize) * blockBytes;
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
