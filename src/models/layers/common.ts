/** The parts that every decoder shares: description, embedding, feed-forward, head. */
import type { ConfigReader } from '../config-reader.ts';
import type { BaseConfig } from '../define-model.ts';
import type { Graph, Tensor } from '../graph.ts';

/** Everything of BaseConfig but the context, which depends on the rope. */
export function readBase(reader: ConfigReader): BaseConfig {
  reader.oneOf({ huggingface: 'hidden_act' }, ['silu'], 'silu');
  // GGUF's vocab_size is optional and counts tokens; the table says how many rows there are.
  const table = reader.checkpoint.tensors.get('token_embd.weight')?.shape[0];
  return {
    vocabSize: table ?? reader.count({ huggingface: 'vocab_size', gguf: 'vocab_size' }),
    hiddenSize: reader.count({ huggingface: 'hidden_size', gguf: 'embedding_length' }),
    layers: reader.count({ huggingface: 'num_hidden_layers', gguf: 'block_count' }, { maximum: 4096 }),
    contextLength: reader.count(
      { huggingface: 'max_position_embeddings', gguf: 'context_length' },
      { maximum: 2 ** 31 },
    ),
    epsilon: reader.real({ huggingface: 'rms_norm_eps', gguf: 'attention.layer_norm_rms_epsilon' }),
  };
}

/** down(silu(gate x) · (up x)). */
export function feedForward(graph: Graph, path: string, x: Tensor, width: number): Tensor {
  const gate = graph.linear(`${path}.gate_proj`, x, width);
  const up = graph.linear(`${path}.up_proj`, x, width);
  return graph.linear(`${path}.down_proj`, graph.glu(`${path}.act_fn`, gate, up), x.columns);
}

/** One decoder: embedding, layers of norm–attention–norm–mixture with residuals, and the head over the output rows. */
export function decoder(
  graph: Graph,
  config: BaseConfig & { readonly tied: boolean },
  attention: (layer: Graph, x: Tensor, index: number) => Tensor,
  mixture: (layer: Graph, x: Tensor, index: number) => Tensor,
): Tensor {
  const { vocabSize, hiddenSize, epsilon } = config;
  let x = graph.embed('model.embed_tokens', vocabSize, hiddenSize);
  for (let index = 0; index < config.layers; index++) {
    const layer = graph.layer(index);
    const attended = attention(layer, layer.rmsNorm('input_layernorm', x, epsilon), index);
    x = layer.add('self_attn.residual', x, attended);
    x = layer.add('mlp.residual', x, mixture(layer, layer.rmsNorm('post_attention_layernorm', x, epsilon), index));
  }
  x = graph.rmsNorm('model.norm', graph.gatherRows('model.outputs', x), epsilon);
  // A head that is absent is the embedding; where the description denies that, the missing head is an error.
  const shared = config.tied && !graph.weights.has('lm_head.weight');
  const head = graph.weight(shared ? 'model.embed_tokens' : 'lm_head', [vocabSize, hiddenSize]);
  return graph.linear('lm_head', x, vocabSize, { weight: head });
}

/** True unless a Hugging Face description says that head and embedding are two. */
export function mayBeTied(reader: ConfigReader): boolean {
  return reader.flag({ huggingface: 'tie_word_embeddings' }, true);
}
