/**
 * Models speak in Hugging Face's module paths; this is their one translation into GGUF's tensor names.
 * Source: gguf-py's tensor_mapping and the files themselves.
 */
import { TandemError } from '../errors.ts';

/** Outside the layers. */
const GLOBAL: Readonly<Record<string, string>> = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
};

/** Under `model.layers.N.` and `blk.N.`. */
const LAYER: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'self_attn.q_a_proj': 'attn_q_a',
  'self_attn.q_a_layernorm': 'attn_q_a_norm',
  'self_attn.q_b_proj': 'attn_q_b',
  'self_attn.kv_a_proj_with_mqa': 'attn_kv_a_mqa',
  'self_attn.kv_a_layernorm': 'attn_kv_a_norm',
  'self_attn.kv_b_proj': 'attn_kv_b',
  'self_attn.k_b_proj': 'attn_k_b',
  'self_attn.v_b_proj': 'attn_v_b',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  'mlp.gate': 'ffn_gate_inp',
  'block_sparse_moe.gate': 'ffn_gate_inp',
  'mlp.shared_experts.gate_proj': 'ffn_gate_shexp',
  'mlp.shared_experts.up_proj': 'ffn_up_shexp',
  'mlp.shared_experts.down_proj': 'ffn_down_shexp',
};

/** Where an architecture's names differ: names under `blk.N.` by Hugging Face's under `model.layers.N.`. */
export type OwnNames = Readonly<Record<string, string>>;

/** `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`. */
function ggufName(path: string, own: OwnNames): string {
  const sinks = /^model\.layers\.(\d+)\.self_attn\.sinks$/.exec(path);
  if (sinks) return `blk.${sinks[1]}.attn_sinks.weight`;
  const bias = /^model\.layers\.(\d+)\.mlp\.gate\.e_score_correction_bias$/.exec(path);
  if (bias) return `blk.${bias[1]}.exp_probs_b.bias`;
  const parts = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(path);
  const name =
    parts === null ? undefined : parts[1] === undefined ? GLOBAL[parts[2]] : (own[parts[2]] ?? LAYER[parts[2]]);
  if (parts === null || name === undefined) {
    throw new TandemError('PROGRAM_INVALID', {
      room: 'models',
      rule: 'every weight of a model has a GGUF name',
      given: `"${path}" has none`,
      fix: 'add it to gguf-names.ts',
    });
  }
  return parts[1] === undefined ? `${name}.${parts[3]}` : `blk.${parts[1]}.${name}.${parts[3]}`;
}

/** The checkpoint's name of a Hugging Face path; `own` are the architecture's own names in GGUF. */
export function tensorName(kind: 'gguf' | 'huggingface', path: string, own: OwnNames = {}): string {
  return kind === 'gguf' ? ggufName(path, own) : path;
}

/** Further names of a tensor in files of other converters: the correction bias comes with another suffix or none. */
export function otherNames(name: string): string[] {
  const stem = /^(blk\.\d+\.exp_probs_b)\.bias$/.exec(name)?.[1];
  return stem === undefined ? [] : [stem, `${stem}.weight`];
}

export type Projection = 'gate' | 'up' | 'down';

/**
 * Where the experts of `path` (`model.layers.3.mlp.experts`) may be, in order; `{e}` stands for the expert's number.
 * GGUF: fused, or (files before 2024-04) one tensor per expert. Hugging Face: DeepSeek's and Qwen's names, Mixtral's.
 */
export function expertNames(kind: 'gguf' | 'huggingface', path: string, projection: Projection): string[] {
  if (kind === 'gguf') {
    const block = `blk.${/^model\.layers\.(\d+)\./.exec(path)?.[1]}`;
    return [`${block}.ffn_${projection}_exps.weight`, `${block}.ffn_${projection}.{e}.weight`];
  }
  const mixtral = { gate: 'w1', up: 'w3', down: 'w2' }[projection];
  return [
    `${path}.{e}.${projection}_proj.weight`,
    `${path}.{e}.${mixtral}.weight`,
    `${path}.${projection}_proj`,
    `${path}.${projection}_proj.weight`,
  ];
}

/** Names of a tensor [E, 2F, H] that holds gate above up, as newer converters write; none for down. */
export function gateUpNames(kind: 'gguf' | 'huggingface', path: string, projection: Projection): string[] {
  if (projection === 'down') return [];
  if (kind === 'huggingface') return [`${path}.gate_up_proj`, `${path}.gate_up_proj.weight`];
  return [`blk.${/^model\.layers\.(\d+)\./.exec(path)?.[1]}.ffn_gate_up_exps.weight`];
}

/** Names of a tensor [E, N] of biases; the second, of gate and up, holds both in turn. */
export function expertBiasNames(kind: 'gguf' | 'huggingface', path: string, projection: Projection): string[] {
  if (kind === 'gguf') return [`blk.${/^model\.layers\.(\d+)\./.exec(path)?.[1]}.ffn_${projection}_exps.bias`];
  const own = `${path}.${projection}_proj_bias`;
  return projection === 'down' ? [own] : [own, `${path}.gate_up_proj_bias`];
}
