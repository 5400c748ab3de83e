/** Routed experts: router logits → top-k → experts. */
import type { Graph, RouterSpec, Tensor } from '../graph.ts';

export interface Moe {
  readonly experts: number;
  /** Width of one expert. */
  readonly ffn: number;
  readonly router: RouterSpec;
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

/** Softmax over all experts, the best k, their weights renormalized or not: Mixtral, Qwen. */
export function softmaxRouter(topk: number, normalize: boolean): RouterSpec {
  return { topk, score: 'softmax', groups: 1, groupTopk: 1, groupScore: 'max', normalize, scale: 1 };
}
