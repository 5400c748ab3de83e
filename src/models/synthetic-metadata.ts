/** GGUF metadata of a model, from its typed configuration: the counterpart of the architectures' `config`. */
import type { GgufValue } from '../formats/gguf-encode.ts';
import type { DeepseekV3Config } from './deepseek-v3.ts';
import type { BaseConfig } from './define-model.ts';
import type { Glm4MoeConfig } from './glm4-moe.ts';
import type { GptOssConfig } from './gpt-oss.ts';
import type { GroupedAttention } from './layers/grouped-attention.ts';
import type { Moe } from './layers/moe.ts';
import type { Rope } from './layers/rope.ts';
import type { LlamaConfig } from './llama.ts';
import { FILE_TYPE, type QuantMix } from './quant-mix.ts';
import type { Qwen3Config } from './qwen3.ts';
import type { Qwen3MoeConfig } from './qwen3-moe.ts';
import type { SyntheticModel } from './synthetic.ts';
import { syntheticTokenizer } from './synthetic-tokenizer.ts';

export type Metadata = Map<string, GgufValue>;

const u32 = (value: number): GgufValue => ({ type: 'u32', value });
const f32 = (value: number): GgufValue => ({ type: 'f32', value });
const bool = (value: boolean): GgufValue => ({ type: 'bool', value });
const text = (value: string): GgufValue => ({ type: 'string', value });

/** All keys of a file: general, architecture, tokenizer. */
export function ggufMetadata(name: string, { model, config }: SyntheticModel, mix: QuantMix): Metadata {
  const architecture = model.gguf[0];
  const metadata: Metadata = new Map([
    ['general.architecture', text(architecture)],
    ['general.name', text(name)],
    ['general.file_type', u32(FILE_TYPE[mix])],
    ['general.quantization_version', u32(2)],
  ]);
  const keys = { ...baseKeys(config), ...architectureKeys(model.name, config) };
  for (const [key, value] of Object.entries(keys)) metadata.set(`${architecture}.${key}`, value);
  for (const [key, value] of syntheticTokenizer(config.vocabSize, pretokenizer(architecture))) {
    metadata.set(`tokenizer.${key}`, value);
  }
  return metadata;
}

type Keys = Record<string, GgufValue>;

function baseKeys(config: BaseConfig): Keys {
  return {
    vocab_size: u32(config.vocabSize),
    context_length: u32(config.contextLength),
    embedding_length: u32(config.hiddenSize),
    block_count: u32(config.layers),
    'attention.layer_norm_rms_epsilon': f32(config.epsilon),
  };
}

function architectureKeys(name: string, config: BaseConfig): Keys {
  if (name === 'deepseek-v3') return deepseekKeys(config as DeepseekV3Config);
  if (name === 'glm4-moe') return glmKeys(config as Glm4MoeConfig);
  if (name === 'gpt-oss') return gptOssKeys(config as GptOssConfig);
  const { attention, ffn, moe } = config as Qwen3Config & Partial<Qwen3MoeConfig> & LlamaConfig;
  const experts = moe && { ...moeKeys(moe), ...(name === 'qwen3-moe' && { expert_feed_forward_length: u32(moe.ffn) }) };
  return { feed_forward_length: u32(ffn), ...groupedKeys(attention), ...experts };
}

function groupedKeys({ heads, kvHeads, headSize, rotated, rope }: GroupedAttention): Keys {
  return {
    'attention.head_count': u32(heads),
    'attention.head_count_kv': u32(kvHeads),
    'attention.key_length': u32(headSize),
    'attention.value_length': u32(headSize),
    'rope.dimension_count': u32(rotated),
    ...ropeKeys(rope),
  };
}

function moeKeys({ experts, router }: Moe): Keys {
  return { expert_count: u32(experts), expert_used_count: u32(router.topk) };
}

function ropeKeys({ base, scaling }: Rope): Keys {
  const keys: Keys = { 'rope.freq_base': f32(base) };
  if (scaling.type === 'linear') {
    return { ...keys, 'rope.scaling.type': text('linear'), 'rope.scaling.factor': f32(scaling.factor) };
  }
  if (scaling.type !== 'yarn') return keys;
  const own = 1 + 0.1 * Math.log(scaling.factor);
  return {
    ...keys,
    'rope.scaling.type': text('yarn'),
    'rope.scaling.factor': f32(scaling.factor),
    'rope.scaling.original_context_length': u32(scaling.originalContext),
    'rope.scaling.yarn_beta_fast': f32(scaling.betaFast),
    'rope.scaling.yarn_beta_slow': f32(scaling.betaSlow),
    ...(scaling.attention === 1
      ? { 'rope.scaling.attn_factor': f32(scaling.magnitude / own) }
      : { 'rope.scaling.yarn_log_multiplier': f32((scaling.attention - 1) / Math.log(scaling.factor)) }),
  };
}

function deepseekKeys(config: DeepseekV3Config): Keys {
  const { moe } = config;
  const keys: Keys = {
    'attention.head_count': u32(config.heads),
    'attention.head_count_kv': u32(config.heads),
    'attention.key_length': u32(config.nope + config.ropeWidth),
    'attention.value_length': u32(config.value),
    'attention.kv_lora_rank': u32(config.latent),
    'rope.dimension_count': u32(config.ropeWidth),
    feed_forward_length: u32(config.ffn),
    leading_dense_block_count: u32(config.firstMoeLayer),
    ...ropeKeys(config.rope),
  };
  if (config.qLora !== undefined) keys['attention.q_lora_rank'] = u32(config.qLora);
  return moe === undefined ? keys : { ...keys, ...mixtureKeys(moe, config.sharedFfn) };
}

function glmKeys({ attention, ffn, firstMoeLayer, moe, sharedFfn }: Glm4MoeConfig): Keys {
  return {
    feed_forward_length: u32(ffn),
    leading_dense_block_count: u32(firstMoeLayer),
    ...groupedKeys(attention),
    ...mixtureKeys(moe, sharedFfn),
  };
}

function gptOssKeys({ attention, window, moe }: GptOssConfig): Keys {
  return {
    ...groupedKeys(attention),
    ...moeKeys(moe),
    expert_feed_forward_length: u32(moe.ffn),
    'attention.sliding_window': u32(window),
  };
}

/** Routed and shared experts. */
function mixtureKeys(moe: Moe, sharedFfn: number): Keys {
  return {
    ...moeKeys(moe),
    expert_feed_forward_length: u32(moe.ffn),
    expert_shared_count: u32(sharedFfn / moe.ffn),
    expert_weights_scale: f32(moe.router.scale),
    expert_weights_norm: bool(moe.router.normalize),
    expert_gating_func: u32(moe.router.score === 'softmax' ? 1 : 2),
    expert_group_count: u32(moe.router.groups),
    expert_group_used_count: u32(moe.router.groupTopk),
  };
}

function pretokenizer(architecture: string): string {
  if (architecture === 'deepseek2') return 'deepseek-llm';
  if (architecture === 'glm4moe') return 'glm4';
  if (architecture === 'gpt-oss') return 'gpt-4o';
  return architecture === 'llama' ? 'llama-bpe' : 'qwen2';
}

/** Values alone, as an opened checkpoint has them. */
export function plainMetadata(metadata: Metadata): Map<string, GgufValue['value']> {
  return new Map([...metadata].map(([key, { value }]) => [key, value]));
}
