/**
 * GLM-4.5, GLM-4.5-Air, GLM-4.6: grouped-query attention whose heads rotate by half, routed experts beside shared ones.
 * arXiv:2508.06471. Layers that predict further tokens are not part of the Program.
 */
import type { ConfigReader } from './config-reader.ts';
import { type BaseConfig, defineModel } from './define-model.ts';
import { decoder, feedForward, mayBeTied, readBase } from './layers/common.ts';
import { type GroupedAttention, groupedAttention, readGroupedAttention } from './layers/grouped-attention.ts';
import { type Moe, readGroupedMoe, readSharedFfn, sharedAndRouted } from './layers/moe.ts';
import { ropeContext } from './layers/rope.ts';

export interface Glm4MoeConfig extends BaseConfig {
  readonly tied: boolean;
  readonly attention: GroupedAttention;
  /** Width of the dense layers. */
  readonly ffn: number;
  readonly firstMoeLayer: number;
  readonly moe: Moe;
  /** Width of the shared experts, one matrix; 0: none. */
  readonly sharedFfn: number;
}

export const glm4Moe = defineModel<Glm4MoeConfig>({
  name: 'glm4-moe',
  huggingface: ['glm4_moe'],
  gguf: ['glm4moe'],
  ggufNames: { post_attention_layernorm: 'post_attention_norm' },

  async config(reader) {
    const base = readBase(reader);
    const attention = await readGroupedAttention(reader, base.hiddenSize, 'halves', { partial: 0.5, bias: 'qkv' });
    const moe = readMoe(reader);
    return {
      ...base,
      layers: base.layers - draftLayers(reader, base.layers),
      contextLength: ropeContext(base.contextLength, attention.rope),
      tied: mayBeTied(reader),
      attention: { ...attention, ...(hasHeadNorms(reader) && { headNorm: base.epsilon }) },
      ffn: reader.count({ huggingface: 'intermediate_size', gguf: 'feed_forward_length' }),
      firstMoeLayer: reader.count(
        { huggingface: 'first_k_dense_replace', gguf: 'leading_dense_block_count' },
        { default: reader.isGguf ? 0 : 1, minimum: 0 },
      ),
      moe,
      sharedFfn: readSharedFfn(reader, moe),
    };
  },

  build(graph, config) {
    const { attention, ffn, firstMoeLayer, moe, sharedFfn } = config;
    return decoder(
      graph,
      config,
      (layer, x) => groupedAttention(layer, x, attention),
      (layer, x, index) =>
        index < firstMoeLayer
          ? feedForward(layer, 'mlp', x, ffn)
          : sharedAndRouted(layer, x, moe, { ffn: sharedFfn, correction: 'required' }),
    );
  },
});

/** The large model has norms of q and k heads, Air has none. GGUF has no key for it. */
function hasHeadNorms(reader: ConfigReader): boolean {
  if (reader.isGguf) return reader.checkpoint.tensors.has('blk.0.attn_q_norm.weight');
  return reader.flag({ huggingface: 'use_qk_norm' }, false);
}

/** Of the layers that GGUF counts, the last predict further tokens; config.json does not count them. */
function draftLayers(reader: ConfigReader, layers: number): number {
  return reader.count({ gguf: 'nextn_predict_layers' }, { default: 0, minimum: 0, maximum: layers - 1 });
}

function readMoe(reader: ConfigReader): Moe {
  const experts = reader.count({ huggingface: 'n_routed_experts', gguf: 'expert_count' });
  const groups = reader.count({ huggingface: 'n_group', gguf: 'expert_group_count' }, { default: 1 });
  const kept = reader.count({ huggingface: 'topk_group', gguf: 'expert_group_used_count' }, { default: groups });
  // One group, or all of them kept, limits nothing.
  const limit = groups === kept ? { groups: 1, groupTopk: 1 } : { groups, groupTopk: kept };
  const gating = reader.count({ gguf: 'expert_gating_func' }, { default: 2, maximum: 2 });
  const score = gating === 1 ? 'softmax' : 'sigmoid';
  return readGroupedMoe(reader, experts, { score, ...limit, groupScore: 'top2', normalize: true });
}
