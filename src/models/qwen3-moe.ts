/** Qwen3-MoE (30B-A3B, 235B-A22B): Qwen3's attention, softmax top-k experts, none shared. */
import { defineModel } from './define-model.ts';
import { decoder, feedForward } from './layers/common.ts';
import { groupedAttention } from './layers/grouped-attention.ts';
import { type Moe, routedExperts, softmaxRouter } from './layers/moe.ts';
import { type Qwen3Config, readFfn, readQwen3 } from './qwen3.ts';

export interface Qwen3MoeConfig extends Qwen3Config {
  readonly moe: Moe;
  /** Layers that are dense whatever the step says. */
  readonly denseLayers: readonly number[];
  /** Every how many layers one has experts. */
  readonly sparseStep: number;
}

export const qwen3Moe = defineModel<Qwen3MoeConfig>({
  name: 'qwen3-moe',
  huggingface: ['qwen3_moe'],
  gguf: ['qwen3moe'],

  async config(reader) {
    const experts = reader.count({ huggingface: 'num_experts', gguf: 'expert_count' });
    const topk = reader.count({ huggingface: 'num_experts_per_tok', gguf: 'expert_used_count' }, { maximum: experts });
    // GGUF has no key for it: every published file is of a model that renormalizes.
    const normalize = reader.flag({ huggingface: 'norm_topk_prob' }, reader.isGguf);
    return {
      ...(await readQwen3(reader)),
      ffn: readFfn(reader),
      moe: {
        experts,
        ffn: reader.count({ huggingface: 'moe_intermediate_size', gguf: 'expert_feed_forward_length' }),
        router: softmaxRouter(topk, normalize),
      },
      denseLayers: reader.counts({ huggingface: 'mlp_only_layers' }),
      sparseStep: reader.count({ huggingface: 'decoder_sparse_step' }, { default: 1 }),
    };
  },

  build(graph, config) {
    return decoder(
      graph,
      config,
      (layer, x) => groupedAttention(layer, x, config.attention),
      (layer, x, index) =>
        config.denseLayers.includes(index) || (index + 1) % config.sparseStep !== 0
          ? feedForward(layer, 'mlp', x, config.ffn)
          : routedExperts(layer, 'mlp', x, config.moe),
    );
  },
});
