/**
 * gpt-oss (20b, 120b): grouped-query attention with sinks, every other layer over a window, routed experts with biases
 * and a clamped SwiGLU. arXiv:2508.10925. Its own files hold MXFP4 with gate and up rows in turn; those that were tuned hold
 * bf16, column by column, as transformers computes it.
 */
import type { ConfigReader } from './config-reader.ts';
import { type BaseConfig, defineModel } from './define-model.ts';
import { decoder, mayBeTied, readBase } from './layers/common.ts';
import { type GroupedAttention, groupedAttention, readGroupedAttention } from './layers/grouped-attention.ts';
import { type Moe, softmaxRouter } from './layers/moe.ts';
import { ropeContext } from './layers/rope.ts';

export interface GptOssConfig extends BaseConfig {
  readonly tied: boolean;
  readonly attention: GroupedAttention;
  readonly window: number;
  /** Layers whose rows see the last `window` positions only. */
  readonly windowed: readonly boolean[];
  readonly moe: Moe;
  /** Beyond which gate and up are clamped. */
  readonly limit: number;
}

/** Steepness of the sigmoid; neither container has a key for it. */
const ALPHA = 1.702;

export const gptOss = defineModel<GptOssConfig>({
  name: 'gpt-oss',
  huggingface: ['gpt_oss'],
  gguf: ['gpt-oss'],
  ggufNames: { post_attention_layernorm: 'post_attention_norm', 'mlp.router': 'ffn_gate_inp' },

  async config(reader) {
    const base = readBase(reader);
    // GGUF cannot say that YaRN's ramp is not truncated; these models were made without.
    const options = { truncate: !reader.isGguf } as const;
    const attention = await readGroupedAttention(reader, base.hiddenSize, 'halves', options);
    const experts = reader.count({ huggingface: 'num_local_experts', gguf: 'expert_count' });
    const topk = reader.count({ huggingface: 'num_experts_per_tok', gguf: 'expert_used_count' }, { maximum: experts });
    return {
      ...base,
      contextLength: ropeContext(base.contextLength, attention.rope),
      tied: mayBeTied(reader),
      attention: { ...attention, bias: 'qkvo', sinks: true },
      window: reader.count({ huggingface: 'sliding_window', gguf: 'attention.sliding_window' }),
      windowed: readWindowed(reader, base.layers),
      moe: {
        experts,
        ffn: reader.count({ huggingface: 'intermediate_size', gguf: 'expert_feed_forward_length' }),
        // Softmax over all and then over the sum of the chosen is softmax over the chosen.
        router: softmaxRouter(topk, true),
      },
      limit: reader.real({ huggingface: 'swiglu_limit' }, 7),
    };
  },

  build(graph, config) {
    const { attention, window, windowed, moe, limit } = config;
    return decoder(
      graph,
      config,
      (layer, x, index) => groupedAttention(layer, x, attention, windowed[index] ? window : undefined),
      (layer, x) => {
        const logits = layer.linear('mlp.router', x, moe.experts, { bias: true });
        const route = layer.router('mlp.topk', logits, undefined, moe.router);
        return layer.experts('mlp.experts', x, route, moe.experts, moe.ffn, {
          activation: 'swiglu-clamped',
          alpha: ALPHA,
          limit,
          bias: true,
          stored: { inTurn: true, byColumns: true },
        });
      },
    );
  },
});

/** `layer_types`, as far as there are layers; where absent, as in GGUF, windows alternate with full layers, beginning with a window. */
function readWindowed(reader: ConfigReader, layers: number): boolean[] {
  const types = reader.words({ huggingface: 'layer_types' });
  if (types === undefined) return Array.from({ length: layers }, (_, index) => index % 2 === 0);
  const known = types.every((type) => type === 'sliding_attention' || type === 'full_attention');
  reader.expect(
    types.length >= layers && known,
    'layer_types names sliding_attention or full_attention for every layer',
    `${types.length} of them, ${layers} layers: ${[...new Set(types)].join(', ')}`,
  );
  return types.slice(0, layers).map((type) => type === 'sliding_attention');
}
