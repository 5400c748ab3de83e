/**
 * DeepSeek V2, V2-Lite, V3, R1, V3.1 and Kimi-K2: multi-head latent attention, routed experts beside shared ones.
 *
 * Papers: arXiv:2405.04434 (V2), arXiv:2412.19437 (V3). Layers from `num_hidden_layers` on (multi-token prediction) are
 * not part of the Program.
 */

import type { Routing } from '../ops/routing.ts';
import type { ConfigReader } from './config-reader.ts';
import { type BaseConfig, defineModel } from './define-model.ts';
import type { Graph, Tensor } from './graph.ts';
import { view } from './graph.ts';
import { decoder, feedForward, mayBeTied, readBase } from './layers/common.ts';
import { type Groups, type Moe, readGroupedMoe, readSharedFfn, sharedAndRouted } from './layers/moe.ts';
import { type Rope, readRope, ropeContext, ropeFrequencies } from './layers/rope.ts';

export interface DeepseekV3Config extends BaseConfig {
  readonly tied: boolean;
  readonly heads: number;
  /** Rank of the queries' low-rank projection; undefined: one whole projection. */
  readonly qLora?: number;
  /** Size of the cached latent. */
  readonly latent: number;
  /** Columns of a key head without and with rotation, of a value head. */
  readonly nope: number;
  readonly ropeWidth: number;
  readonly value: number;
  readonly rope: Rope;
  /** Width of the dense layers. */
  readonly ffn: number;
  readonly firstMoeLayer: number;
  readonly moeLayerFrequency: number;
  /** undefined: all layers are dense. */
  readonly moe?: Moe;
  /** Whether the choice of experts has a correction bias. */
  readonly correction: 'none' | 'optional' | 'required';
  /** Width of the shared experts, one matrix; 0: none. */
  readonly sharedFfn: number;
}

export const deepseekV3 = defineModel<DeepseekV3Config>({
  name: 'deepseek-v3',
  huggingface: ['deepseek_v2', 'deepseek_v3', 'kimi_k2'],
  gguf: ['deepseek2'],

  async config(reader) {
    const base = readBase(reader);
    const moe = readMoe(reader);
    const ropeWidth = reader.count({ huggingface: 'qk_rope_head_dim', gguf: 'rope.dimension_count' });
    reader.expect(ropeWidth % 2 === 0, 'the rotated part of a head is even', String(ropeWidth));
    const rope = await readDeepseekRope(reader, ropeWidth, moe);
    return {
      ...base,
      layers: base.layers - draftLayers(reader, base.layers),
      contextLength: ropeContext(base.contextLength, rope),
      tied: mayBeTied(reader),
      heads: reader.count({ huggingface: 'num_attention_heads', gguf: 'attention.head_count' }, { maximum: 4096 }),
      qLora: reader.countOptional({ huggingface: 'q_lora_rank', gguf: 'attention.q_lora_rank' }),
      latent: reader.count({ huggingface: 'kv_lora_rank', gguf: 'attention.kv_lora_rank' }),
      ...readHeadSizes(reader, ropeWidth),
      ropeWidth,
      rope,
      ffn: reader.count({ huggingface: 'intermediate_size', gguf: 'feed_forward_length' }),
      firstMoeLayer: reader.count(
        { huggingface: 'first_k_dense_replace', gguf: 'leading_dense_block_count' },
        { default: 0, minimum: 0 },
      ),
      moeLayerFrequency: reader.count({ huggingface: 'moe_layer_freq' }, { default: 1 }),
      moe,
      correction: reader.isGguf ? 'optional' : topkMethod(reader) === 'noaux_tc' ? 'required' : 'none',
      sharedFfn: moe === undefined ? 0 : readSharedFfn(reader, moe),
    };
  },

  build(graph, config) {
    return decoder(
      graph,
      config,
      (layer, x) => latentAttention(layer, x, config),
      (layer, x, index) => mixture(layer, x, index, config),
    );
  },
});

function latentAttention(graph: Graph, x: Tensor, config: DeepseekV3Config): Tensor {
  const { heads, latent, nope, ropeWidth, value, epsilon, rope } = config;
  const turn = { style: 'pairs', width: ropeWidth, ...ropeFrequencies(ropeWidth, rope) } as const;
  const headSize = nope + ropeWidth;
  const q = graph.rope('self_attn.q_rope', queries(graph, x, config), { ...turn, headSize, offset: nope });
  const down = graph.linear('self_attn.kv_a_proj_with_mqa', x, latent + ropeWidth);
  const normed = graph.rmsNorm('self_attn.kv_a_layernorm', view(down, 0, latent), epsilon);
  const key = view(down, latent, ropeWidth);
  const ropeKey = graph.rope('self_attn.k_rope', key, { ...turn, headSize: ropeWidth, offset: 0 });
  const cache = graph.mlaAppend('self_attn.mla_append', normed, ropeKey);
  const scale = headSize ** -0.5 * (rope.scaling.type === 'yarn' ? rope.scaling.attention ** 2 : 1);
  const spec = { cache, heads, nope, rope: ropeWidth, latent, value, scale };
  const attended = graph.mla('self_attn.mla', q, keyValueUp(graph, config), spec);
  return graph.linear('self_attn.o_proj', attended, x.columns);
}

function queries(graph: Graph, x: Tensor, config: DeepseekV3Config): Tensor {
  const columns = config.heads * (config.nope + config.ropeWidth);
  if (config.qLora === undefined) return graph.linear('self_attn.q_proj', x, columns);
  const down = graph.linear('self_attn.q_a_proj', x, config.qLora);
  return graph.linear('self_attn.q_b_proj', graph.rmsNorm('self_attn.q_a_layernorm', down, config.epsilon), columns);
}

/** kv_b whole, or the halves that newer GGUF files hold (files with all three keep the whole one's precision). */
function keyValueUp(graph: Graph, { heads, nope, value, latent }: DeepseekV3Config) {
  const split = !graph.weights.has(graph.path('self_attn.kv_b_proj.weight')) && graph.weights.kind === 'gguf';
  if (!split) return [graph.weight('self_attn.kv_b_proj', [heads * (nope + value), latent])] as const;
  const k = graph.weight('self_attn.k_b_proj', [heads, latent, nope]);
  return [k, graph.weight('self_attn.v_b_proj', [heads, value, latent])] as const;
}

function mixture(graph: Graph, x: Tensor, index: number, config: DeepseekV3Config): Tensor {
  const { moe, sharedFfn, firstMoeLayer, moeLayerFrequency } = config;
  if (moe === undefined || index < firstMoeLayer || index % moeLayerFrequency !== 0) {
    return feedForward(graph, 'mlp', x, config.ffn);
  }
  return sharedAndRouted(graph, x, moe, { ffn: sharedFfn, correction: config.correction });
}

/** GGUF files made for the absorbed form say head_count_kv = 1 and keep the true head sizes under `…_mla`. */
function readHeadSizes(reader: ConfigReader, ropeWidth: number): { nope: number; value: number } {
  if (!reader.isGguf) {
    return {
      nope: reader.count({ huggingface: 'qk_nope_head_dim' }),
      value: reader.count({ huggingface: 'v_head_dim' }),
    };
  }
  const split = reader.has({ gguf: 'attention.key_length_mla' });
  const key = reader.count({ gguf: split ? 'attention.key_length_mla' : 'attention.key_length' });
  const value = reader.count({ gguf: split ? 'attention.value_length_mla' : 'attention.value_length' });
  reader.expect(key > ropeWidth, 'a key head is wider than its rotated part', `${key} and ${ropeWidth}`);
  return { nope: key - ropeWidth, value };
}

/** GGUF: trailing layers that predict further tokens are counted in block_count by some converters. */
function draftLayers(reader: ConfigReader, layers: number): number {
  let drafts = 0;
  while (reader.checkpoint.tensors.has(`blk.${layers - 1 - drafts}.nextn.eh_proj.weight`)) drafts++;
  return drafts;
}

/**
 * GGUF's converters assume mscale = mscale_all_dim, so cos and sin stay as they are; a file of Kimi-K2 without ramp keys
 * means that model's own 1 and 1.
 */
async function readDeepseekRope(reader: ConfigReader, width: number, moe: Moe | undefined): Promise<Rope> {
  const rope = await readRope(reader, width);
  if (!reader.isGguf || rope.scaling.type !== 'yarn') return rope;
  const kimi = moe?.experts === 384 && !reader.has({ gguf: 'rope.scaling.yarn_beta_fast' });
  return { ...rope, scaling: { ...rope.scaling, magnitude: 1, ...(kimi && { betaFast: 1 }) } };
}

function topkMethod(reader: ConfigReader): 'greedy' | 'group_limited_greedy' | 'noaux_tc' {
  const fallback = reader.architecture === 'deepseek_v2' ? 'greedy' : 'noaux_tc';
  return reader.oneOf({ huggingface: 'topk_method' }, ['greedy', 'group_limited_greedy', 'noaux_tc'], fallback);
}

function readMoe(reader: ConfigReader): Moe | undefined {
  const experts = reader.count({ huggingface: 'n_routed_experts', gguf: 'expert_count' }, { default: 0, minimum: 0 });
  if (experts === 0) return undefined;
  const score = reader.isGguf
    ? (['softmax', 'sigmoid'] as const)[reader.count({ gguf: 'expert_gating_func' }, { default: 1, maximum: 2 }) - 1]
    : reader.oneOf(
        { huggingface: 'scoring_func' },
        ['softmax', 'sigmoid'],
        reader.architecture === 'deepseek_v2' ? 'softmax' : 'sigmoid',
      );
  const groups = readGroups(reader, experts, score);
  return readGroupedMoe(reader, experts, { score, ...groups, normalize: false });
}

/** Public GGUF files of V3, R1 (256 experts) and V2 (160) have no group keys; their models have groups all the same. */
function readGroups(reader: ConfigReader, experts: number, score: Routing['score']): Groups {
  const groupScore = score === 'sigmoid' ? 'top2' : 'max';
  const fields = {
    groups: { huggingface: 'n_group', gguf: 'expert_group_count' },
    kept: { huggingface: 'topk_group', gguf: 'expert_group_used_count' },
  };
  if (reader.isGguf && !reader.has(fields.groups)) {
    if (experts === 256 && score === 'sigmoid') return { groups: 8, groupTopk: 4, groupScore };
    if (experts === 160 && score === 'softmax') return { groups: 8, groupTopk: 3, groupScore };
  }
  const none = { groups: 1, groupTopk: 1, groupScore } as const;
  const method = reader.isGguf ? undefined : topkMethod(reader);
  if (method === 'greedy') return none;
  const groups = reader.count(fields.groups, { default: 1 });
  const groupTopk = reader.count(fields.kept, { default: groups });
  // One group, or all of them kept, limits nothing.
  if (groups === groupTopk) return none;
  if (method === undefined) return { groups, groupTopk, groupScore };
  return { groups, groupTopk, groupScore: method === 'noaux_tc' ? 'top2' : 'max' };
}
