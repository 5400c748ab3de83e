/** Grouped-query attention with rotary positions, and norms per head where the model has them. */
import type { ConfigReader } from '../config-reader.ts';
import type { Graph, Tensor } from '../graph.ts';
import { type Rope, readRope, ropeFrequencies } from './rope.ts';

export interface GroupedAttention {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** How pairs of rotated columns lie: neighbours, or the two halves of the head. */
  readonly style: 'pairs' | 'halves';
  readonly rope: Rope;
  /** Whether the four projections have biases. */
  readonly bias: boolean;
  /** ε of the norms of q and k heads; undefined: none. */
  readonly headNorm?: number;
}

export async function readGroupedAttention(
  reader: ConfigReader,
  hiddenSize: number,
  style: GroupedAttention['style'],
): Promise<GroupedAttention> {
  const heads = reader.count({ huggingface: 'num_attention_heads', gguf: 'attention.head_count' }, { maximum: 4096 });
  const kvHeads = reader.count(
    { huggingface: 'num_key_value_heads', gguf: 'attention.head_count_kv' },
    { default: heads, maximum: 4096 },
  );
  reader.expect(heads % kvHeads === 0, 'heads are a multiple of kv heads', `${heads} heads, ${kvHeads} kv heads`);
  const headSize = reader.count(
    { huggingface: 'head_dim', gguf: 'attention.key_length' },
    { default: hiddenSize / heads, maximum: 4096 },
  );
  const valueSize = reader.count({ gguf: 'attention.value_length' }, { default: headSize });
  const width = reader.count({ gguf: 'rope.dimension_count' }, { default: headSize });
  const sizes = `head ${headSize}, value ${valueSize}, rotated ${width}`;
  reader.expect(headSize === valueSize && headSize === width, 'keys, values and rotation are of one size', sizes);
  reader.expect(headSize % 2 === 0, 'the head size is even', sizes);
  const bias = reader.flag({ huggingface: 'attention_bias' }, false);
  return { heads, kvHeads, headSize, style, rope: await readRope(reader, width), bias };
}

export function groupedAttention(graph: Graph, x: Tensor, spec: GroupedAttention): Tensor {
  const { heads, kvHeads, headSize, style, headNorm, bias } = spec;
  const turn = { headSize, offset: 0, width: headSize, style, ...ropeFrequencies(headSize, spec.rope) };
  const project = (which: 'q' | 'k', count: number) => {
    const projected = graph.linear(`self_attn.${which}_proj`, x, count * headSize, { bias });
    if (headNorm === undefined) return projected;
    return graph.rmsNorm(`self_attn.${which}_norm`, projected, headNorm, headSize);
  };
  const q = graph.rope('self_attn.q_rope', project('q', heads), turn);
  const k = graph.rope('self_attn.k_rope', project('k', kvHeads), turn);
  const v = graph.linear('self_attn.v_proj', x, kvHeads * headSize, { bias });
  const cache = graph.kvAppend('self_attn.kv_append', k, v, kvHeads);
  const spread = { cache, heads, kvHeads, headSize, valueSize: headSize, scale: headSize ** -0.5 };
  return graph.linear('self_attn.o_proj', graph.attention('self_attn.attention', q, spread), x.columns, { bias });
}
