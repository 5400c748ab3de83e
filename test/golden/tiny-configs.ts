/** Descriptions of tiny models: every branch that public models take, in a few kilobytes of weights. */
import type { HuggingFaceConfig } from '../../src/models/synthetic.ts';

const common = {
  vocab_size: 272,
  hidden_size: 32,
  intermediate_size: 48,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
  hidden_act: 'silu',
  tie_word_embeddings: false,
};

const latent = {
  ...common,
  num_hidden_layers: 3,
  first_k_dense_replace: 1,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  kv_lora_rank: 24,
  qk_nope_head_dim: 12,
  qk_rope_head_dim: 8,
  v_head_dim: 10,
  moe_intermediate_size: 16,
  num_experts_per_tok: 3,
};

const deepseekV3 = {
  ...latent,
  model_type: 'deepseek_v3',
  q_lora_rank: 20,
  n_routed_experts: 16,
  n_shared_experts: 1,
  n_group: 4,
  topk_group: 2,
  norm_topk_prob: true,
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  topk_method: 'noaux_tc',
};

const deepseekV2 = {
  ...latent,
  model_type: 'deepseek_v2',
  q_lora_rank: null,
  n_routed_experts: 8,
  n_shared_experts: 2,
  n_group: 1,
  topk_group: 1,
  norm_topk_prob: false,
  routed_scaling_factor: 1,
  scoring_func: 'softmax',
  topk_method: 'greedy',
};

const yarn = { type: 'yarn', factor: 4, original_max_position_embeddings: 64, beta_fast: 32, beta_slow: 1 };

const grouped = {
  ...common,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  rope_theta: 10000,
};

const glm = {
  ...grouped,
  model_type: 'glm4_moe',
  num_hidden_layers: 3,
  attention_bias: true,
  partial_rotary_factor: 0.5,
  first_k_dense_replace: 1,
  moe_intermediate_size: 16,
  n_routed_experts: 16,
  n_shared_experts: 2,
  num_experts_per_tok: 3,
  n_group: 1,
  topk_group: 1,
  norm_topk_prob: true,
  routed_scaling_factor: 1,
};

/** A window that most rows of a test exceed, more layers with one than without. */
const gptOss = {
  ...grouped,
  model_type: 'gpt_oss',
  num_hidden_layers: 3,
  num_attention_heads: 8,
  intermediate_size: 64,
  attention_bias: true,
  num_local_experts: 8,
  num_experts_per_tok: 3,
  sliding_window: 24,
  swiglu_limit: 7,
};

export const TINY_CONFIGS: Readonly<Record<string, HuggingFaceConfig>> = {
  'deepseek-v3, groups, YaRN': { ...deepseekV3, rope_scaling: { ...yarn, mscale: 1, mscale_all_dim: 1 } },
  'deepseek-v3, 256 experts': { ...deepseekV3, num_hidden_layers: 2, n_routed_experts: 256, n_group: 8, topk_group: 4 },
  'deepseek-v3, every layer dense': { ...deepseekV3, n_routed_experts: null, n_shared_experts: null },
  'kimi-k2, one group, YaRN without a ramp': {
    ...deepseekV3,
    model_type: 'kimi_k2',
    n_group: 1,
    topk_group: 1,
    rope_scaling: { ...yarn, beta_fast: 1, mscale: 1, mscale_all_dim: 1 },
  },
  'deepseek-v2-lite, YaRN': { ...deepseekV2, rope_scaling: { ...yarn, mscale: 0.7, mscale_all_dim: 0.7 } },
  'deepseek-v2, groups by their best': {
    ...deepseekV2,
    n_group: 4,
    topk_group: 2,
    topk_method: 'group_limited_greedy',
  },
  'glm4-moe': { ...glm, rope_scaling: { ...yarn, factor: 4 } },
  'glm4-moe, norms of heads, groups': {
    ...glm,
    use_qk_norm: true,
    n_group: 4,
    topk_group: 2,
    routed_scaling_factor: 2.5,
  },
  'gpt-oss': gptOss,
  // Both ends of the ramp lie beyond the pairs, where it does not matter whether they are truncated.
  'gpt-oss, YaRN': { ...gptOss, rope_theta: 3, rope_scaling: { ...yarn, truncate: false } },
  'gpt-oss, YaRN with a ramp': { ...gptOss, rope_scaling: { ...yarn, truncate: false } },
  'qwen3-moe': {
    ...grouped,
    model_type: 'qwen3_moe',
    num_experts: 8,
    num_experts_per_tok: 3,
    moe_intermediate_size: 24,
    norm_topk_prob: true,
  },
  'qwen3, tied': { ...grouped, model_type: 'qwen3', tie_word_embeddings: true },
  'qwen3, YaRN': { ...grouped, model_type: 'qwen3', rope_scaling: { ...yarn, rope_type: 'yarn' } },
  llama: { ...grouped, model_type: 'llama', head_dim: undefined, num_key_value_heads: 4 },
  'llama, attention bias': { ...grouped, model_type: 'llama', attention_bias: true },
  'llama, linear scaling': { ...grouped, model_type: 'llama', rope_scaling: { type: 'linear', factor: 2 } },
  'llama 3.1': {
    ...grouped,
    model_type: 'llama',
    rope_scaling: {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
  },
  mixtral: { ...grouped, model_type: 'mixtral', num_local_experts: 8, num_experts_per_tok: 2, sliding_window: null },
};
