/** Qwen3, dense: grouped-query attention with a norm per q and k head. arXiv:2505.09388. */
import type { ConfigReader } from './config-reader.ts';
import { type BaseConfig, defineModel } from './define-model.ts';
import { decoder, feedForward, mayBeTied, readBase } from './layers/common.ts';
import { type GroupedAttention, groupedAttention, readGroupedAttention } from './layers/grouped-attention.ts';
import { ropeContext } from './layers/rope.ts';

export interface Qwen3Config extends BaseConfig {
  readonly tied: boolean;
  readonly attention: GroupedAttention;
  /** Width of the dense layers. */
  readonly ffn: number;
}

export const qwen3 = defineModel<Qwen3Config>({
  name: 'qwen3',
  huggingface: ['qwen3'],
  gguf: ['qwen3'],

  async config(reader) {
    return { ...(await readQwen3(reader)), ffn: readFfn(reader) };
  },

  build(graph, config) {
    return decoder(
      graph,
      config,
      (layer, x) => groupedAttention(layer, x, config.attention),
      (layer, x) => feedForward(layer, 'mlp', x, config.ffn),
    );
  },
});

export function readFfn(reader: ConfigReader): number {
  return reader.count({ huggingface: 'intermediate_size', gguf: 'feed_forward_length' });
}

/** What the dense and the mixture models share. */
export async function readQwen3(reader: ConfigReader): Promise<Omit<Qwen3Config, 'ffn'>> {
  const base = readBase(reader);
  const sliding = reader.flag({ huggingface: 'use_sliding_window' }, false);
  reader.expect(!sliding, 'Qwen3 attends the whole context', 'use_sliding_window is true');
  const attention = await readGroupedAttention(reader, base.hiddenSize, 'halves');
  return {
    ...base,
    contextLength: ropeContext(base.contextLength, attention.rope),
    tied: mayBeTied(reader),
    attention: { ...attention, headNorm: base.epsilon },
  };
}
