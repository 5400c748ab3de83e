/** What an architecture is: its names in the two containers, a typed description, and how it becomes a Program. */
import type { KvType } from '../program/program.ts';
import type { ConfigReader } from './config-reader.ts';
import type { OwnNames } from './gguf-names.ts';
import type { Graph, Tensor } from './graph.ts';

/** What every architecture describes. */
export interface BaseConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  /** Longest position the model was made for. */
  readonly contextLength: number;
  readonly epsilon: number;
}

export interface ModelDefinition<Config extends BaseConfig = BaseConfig> {
  /** The Program's name, and the file's. */
  readonly name: string;
  /** `model_type` values of config.json. */
  readonly huggingface: readonly string[];
  /** `general.architecture` values of GGUF. */
  readonly gguf: readonly string[];
  /** Where GGUF's tensor names are not those of the other architectures. */
  readonly ggufNames?: OwnNames;
  config(reader: ConfigReader): Promise<Config>;
  /** Traces the model up to its logits [O, V]. */
  build(graph: Graph, config: Config): Tensor;
}

export interface BuildOptions {
  /** How the cache is stored; default bf16. */
  readonly kvType?: KvType;
  /** A shorter context than the model's own. */
  readonly contextLength?: number;
}

/** Identity that infers the configuration's type; kept as the one way to declare an architecture. */
export function defineModel<Config extends BaseConfig>(model: ModelDefinition<Config>): ModelDefinition<Config> {
  return model;
}
