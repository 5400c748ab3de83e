/** Routed experts: router logits → top-k → experts; and those that every token takes beside them. */

import type { Routing } from '../../ops/routing.ts';
import type { ConfigReader } from '../config-reader.ts';
import type { Graph, Tensor } from '../graph.ts';
import { feedForward } from './common.ts';

export interface Moe {
  readonly experts: number;
  /** Width of one expert. */
  readonly ffn: number;
  readonly router: Routing;
}

/** `gate` and `experts` lie under `path`; `correction` names the bias of the choice, required or where there is one. */
export function routedExperts(
  graph: Graph,
  path: string,
  x: Tensor,
  moe: Moe,
  correction: 'none' | 'optional' | 'required' = 'none',
): Tensor {
  const logits = graph.linear(`${path}.gate`, x, moe.experts);
  const biasPath = graph.path(`${path}.gate.e_score_correction_bias`);
  const bias =
    correction === 'required'
      ? graph.weights.find(biasPath, [moe.experts])
      : correction === 'optional'
        ? graph.weights.findOptional(biasPath, [moe.experts])
        : undefined;
  const route = graph.router(`${path}.router`, logits, bias, moe.router);
  return graph.experts(`${path}.experts`, x, route, moe.experts, moe.ffn);
}

/** Experts that every token takes, one matrix of width `ffn` (0: none), beside the routed ones. */
export function sharedAndRouted(
  graph: Graph,
  x: Tensor,
  moe: Moe,
  shared: { readonly ffn: number; readonly correction: 'none' | 'optional' | 'required' },
): Tensor {
  const routed = routedExperts(graph, 'mlp', x, moe, shared.correction);
  if (shared.ffn === 0) return routed;
  return graph.add('mlp.sum', routed, feedForward(graph, 'mlp.shared_experts', x, shared.ffn));
}

export type Groups = Pick<Routing, 'groups' | 'groupTopk' | 'groupScore'>;

/** The keys that DeepSeek's and GLM's descriptions share; `normalize` where the description does not say. */
export function readGroupedMoe(
  reader: ConfigReader,
  experts: number,
  router: Groups & Pick<Routing, 'score' | 'normalize'>,
): Moe {
  const { groups, groupTopk } = router;
  const topk = reader.count({ huggingface: 'num_experts_per_tok', gguf: 'expert_used_count' });
  reader.expect(
    experts % groups === 0 && groupTopk <= groups,
    'experts are divided evenly into groups, of which some stay',
    `${experts} experts, ${groups} groups, ${groupTopk} stay`,
  );
  const kept = (experts / groups) * groupTopk;
  reader.expect(topk <= kept, 'no more experts are used than the kept groups have', `${topk} of ${kept}`);
  return {
    experts,
    ffn: reader.count({ huggingface: 'moe_intermediate_size', gguf: 'expert_feed_forward_length' }),
    router: {
      topk,
      ...router,
      normalize: reader.flag({ huggingface: 'norm_topk_prob', gguf: 'expert_weights_norm' }, router.normalize),
      scale: reader.real({ huggingface: 'routed_scaling_factor', gguf: 'expert_weights_scale' }, 1),
    },
  };
}

/** Width of the experts that every token takes. */
export function readSharedFfn(reader: ConfigReader, moe: Moe): number {
  const field = { huggingface: 'n_shared_experts', gguf: 'expert_shared_count' };
  return moe.ffn * reader.count(field, { default: 0, minimum: 0 });
}

/** Softmax over all experts, the best k, their weights renormalized or not: Mixtral, Qwen. */
export function softmaxRouter(topk: number, normalize: boolean): Routing {
  return { topk, score: 'softmax', groups: 1, groupTopk: 1, groupScore: 'max', normalize, scale: 1 };
}
