/**
 * Llama (2, 3, 3.1) and Mixtral, which is Llama with routed experts and in GGUF bears its name.
 *
 * Rotation: Hugging Face rotates the halves of a head; GGUF's converter permutes q and k so that neighbours are pairs.
 */
import type { ConfigReader } from './config-reader.ts';
import { type BaseConfig, defineModel } from './define-model.ts';
import { decoder, feedForward, mayBeTied, readBase } from './layers/common.ts';
import { type GroupedAttention, groupedAttention, readGroupedAttention } from './layers/grouped-attention.ts';
import { type Moe, routedExperts, softmaxRouter } from './layers/moe.ts';
import { ropeContext } from './layers/rope.ts';

export interface LlamaConfig extends BaseConfig {
  readonly tied: boolean;
  readonly attention: GroupedAttention;
  /** Width of the feed-forward layers, or of one expert. */
  readonly ffn: number;
  /** undefined: dense. */
  readonly moe?: Moe;
}

export const llama = defineModel<LlamaConfig>({
  name: 'llama',
  huggingface: ['llama', 'mixtral'],
  gguf: ['llama'],

  async config(reader) {
    const base = readBase(reader);
    const attention = await readGroupedAttention(reader, base.hiddenSize, reader.isGguf ? 'pairs' : 'halves');
    const ffn = reader.count({ huggingface: 'intermediate_size', gguf: 'feed_forward_length' });
    const context = ropeContext(base.contextLength, attention.rope);
    // Within its window, sliding attention is plain attention.
    const window = reader.countOptional({ huggingface: 'sliding_window', gguf: 'attention.sliding_window' }) ?? context;
    return {
      ...base,
      contextLength: Math.min(context, window),
      tied: mayBeTied(reader),
      attention,
      ffn,
      moe: readMoe(reader, ffn),
    };
  },

  build(graph, config) {
    const { moe, ffn } = config;
    return decoder(
      graph,
      config,
      (layer, x) => groupedAttention(layer, x, config.attention),
      (layer, x) =>
        moe === undefined ? feedForward(layer, 'mlp', x, ffn) : routedExperts(layer, 'block_sparse_moe', x, moe),
    );
  },
});

function readMoe(reader: ConfigReader, ffn: number): Moe | undefined {
  const experts = reader.count({ huggingface: 'num_local_experts', gguf: 'expert_count' }, { default: 0, minimum: 0 });
  if (experts === 0) return undefined;
  const topk = reader.count({ huggingface: 'num_experts_per_tok', gguf: 'expert_used_count' }, { maximum: experts });
  return { experts, ffn, router: softmaxRouter(topk, true) };
}
