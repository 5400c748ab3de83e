/** Grouped-query attention with rotary positions, and norms per head where the model has them. */
import type { ConfigReader } from '../config-reader.ts';
import type { Graph, Tensor } from '../graph.ts';
import { type Rope, readRope, ropeFrequencies } from './rope.ts';

export interface GroupedAttention {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** The first columns of each head, those that rotate. */
  readonly rotated: number;
  /** How their pairs lie: neighbours, or two halves. */
  readonly style: 'pairs' | 'halves';
  readonly rope: Rope;
  /** Which projections are bound to have biases; others may. */
  readonly bias: 'none' | 'qkv' | 'qkvo';
  /** ε of the norms of q and k heads; undefined: none. */
  readonly headNorm?: number;
  /** Each head has a sink (`self_attn.sinks`). */
  readonly sinks?: boolean;
}

/** `partial`: the share of a head that rotates unless the description says another; `bias`: what `attention_bias` means. */
export async function readGroupedAttention(
  reader: ConfigReader,
  hiddenSize: number,
  style: GroupedAttention['style'],
  options: { readonly partial?: number; readonly bias?: 'qkv' | 'qkvo'; readonly truncate?: boolean } = {},
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
  const { partial, bias = 'qkvo', truncate } = options;
  const rotated = readRotated(reader, headSize, partial);
  const sizes = `head ${headSize}, value ${valueSize}, rotated ${rotated}`;
  reader.expect(headSize === valueSize, 'keys and values are of one size', sizes);
  reader.expect(
    partial === undefined ? rotated === headSize : rotated <= headSize,
    partial === undefined ? 'heads are rotated whole' : 'no more than a head is rotated',
    sizes,
  );
  reader.expect(rotated % 2 === 0, 'an even number of columns is rotated', sizes);
  const rope = await readRope(reader, rotated, truncate);
  const biased = reader.flag({ huggingface: 'attention_bias' }, false);
  return { heads, kvHeads, headSize, rotated, style, rope, bias: biased ? bias : 'none' };
}

function readRotated(reader: ConfigReader, headSize: number, partial = 1): number {
  if (reader.isGguf) return reader.count({ gguf: 'rope.dimension_count' }, { default: headSize * partial });
  const key = 'partial_rotary_factor';
  const nested = `rope_parameters.${key}`;
  return headSize * reader.real({ huggingface: reader.has({ huggingface: nested }) ? nested : key }, partial);
}

/** `window`: how many positions a row sees; undefined: all. */
export function groupedAttention(graph: Graph, x: Tensor, spec: GroupedAttention, window?: number): Tensor {
  const { heads, kvHeads, headSize, rotated, style, headNorm } = spec;
  const turn = { headSize, offset: 0, width: rotated, style, ...ropeFrequencies(rotated, spec.rope) };
  const bias = spec.bias !== 'none';
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
  const sinks = spec.sinks ? graph.weights.find(graph.path('self_attn.sinks'), [heads]) : undefined;
  const attended = graph.attention('self_attn.attention', q, { ...spread, ...(window && { window }) }, sinks);
  return graph.linear('self_attn.o_proj', attended, x.columns, { bias: spec.bias === 'qkvo' });
}
