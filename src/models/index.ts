/** The architectures Tandem knows, and the way from a checkpoint to its Program. */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { Program } from '../program/program.ts';
import { ConfigReader } from './config-reader.ts';
import { deepseekV3 } from './deepseek-v3.ts';
import type { BaseConfig, BuildOptions, ModelDefinition } from './define-model.ts';
import { glm4Moe } from './glm4-moe.ts';
import { gptOss } from './gpt-oss.ts';
import { Graph } from './graph.ts';
import { llama } from './llama.ts';
import { qwen3 } from './qwen3.ts';
import { qwen3Moe } from './qwen3-moe.ts';
import { WeightSource } from './weights.ts';

/** Their configurations differ; `build` only ever meets the one its own `config` made. */
// biome-ignore lint/suspicious/noExplicitAny: see above
export const MODELS: readonly ModelDefinition<any>[] = [deepseekV3, glm4Moe, gptOss, qwen3Moe, qwen3, llama];

/** What a checkpoint calls itself: `model_type` or `general.architecture`. */
function architectureOf(checkpoint: Checkpoint): string {
  const value =
    checkpoint.kind === 'gguf' ? checkpoint.metadata.get('general.architecture') : checkpoint.config?.model_type;
  if (typeof value === 'string') return value;
  throw new TandemError('MODEL_INVALID', {
    room: 'models',
    rule: `a model says its ${checkpoint.kind === 'gguf' ? 'general.architecture' : 'model_type'}`,
    given: `${checkpoint.name} does not`,
    fix: 'this is not a language model, or its description is damaged',
  });
}

/** The architecture of a checkpoint; MODEL_UNSUPPORTED lists the known ones. */
export function identifyModel(checkpoint: Checkpoint): ModelDefinition {
  const architecture = architectureOf(checkpoint);
  const model = MODELS.find((candidate) => candidate[checkpoint.kind].includes(architecture));
  if (model !== undefined) return model;
  throw new TandemError('MODEL_UNSUPPORTED', {
    room: 'models',
    rule: `known architectures are ${MODELS.flatMap((known) => known[checkpoint.kind]).join(', ')}`,
    given: `${checkpoint.name} is ${architecture}`,
    fix: 'use one of these, or add src/models/<architecture>.ts',
  });
}

export interface BuiltModel {
  /** Unplaced. */
  readonly program: Program;
  readonly model: ModelDefinition;
  readonly config: BaseConfig;
  /** Tensors of the checkpoint that the Program does not use (draft layers and the like). */
  readonly unused: readonly string[];
}

/** Traces the checkpoint's architecture over its weights. Reads headers only. */
export async function buildProgram(checkpoint: Checkpoint, options: BuildOptions = {}): Promise<BuiltModel> {
  const model = identifyModel(checkpoint);
  const config = await model.config(new ConfigReader(checkpoint, architectureOf(checkpoint)));
  const { kvType = 'bf16', contextLength = config.contextLength } = options;
  if (!Number.isInteger(contextLength) || contextLength < 1 || contextLength > config.contextLength) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'models',
      rule: `${checkpoint.name} has a context of 1 to ${config.contextLength} tokens`,
      given: `${contextLength} were asked for`,
      fix: 'choose one in that range, or none: the default is what memory allows',
    });
  }
  const weights = new WeightSource(checkpoint, model.ggufNames);
  const graph = new Graph(weights);
  const logits = model.build(graph, config);
  return {
    program: graph.finish(model.name, logits, { kvType, contextLength }),
    model,
    config,
    unused: weights.unused(),
  };
}
