/**
 * Routing of one row, for the router op and for whoever judges it: scores, what is chosen, what it weighs. Scores and
 * choices are rounded to f32, so that equal logits tie here as they tie in native.
 */
import { sigmoid, softmax } from './math.ts';

export interface Routing {
  readonly topk: number;
  readonly score: 'softmax' | 'sigmoid';
  readonly groups: number;
  readonly groupTopk: number;
  readonly groupScore: 'max' | 'top2';
  readonly normalize: boolean;
  readonly scale: number;
}

/** Softmax or sigmoid of a row of logits. */
export function routerScores(logits: Float32Array, score: Routing['score']): Float32Array {
  if (score === 'sigmoid') return logits.map(sigmoid);
  const scores = Float64Array.from(logits);
  softmax(scores, scores.length);
  return Float32Array.from(scores);
}

/** What the choice is made by: score + bias; NaN counts as −∞. */
export function routerChoices(scores: Float32Array, bias: Float32Array | undefined): Float32Array {
  return scores.map((score, e) => {
    const choice = score + (bias?.[e] ?? 0);
    return Number.isNaN(choice) ? -Infinity : choice;
  });
}

/** Indices of the `count` largest, largest first, ties to the lowest index. −∞ is taken last, in order of index. */
export function largest(values: Float32Array, count: number): number[] {
  const taken = new Uint8Array(values.length);
  const found: number[] = [];
  while (found.length < count) {
    let best = -1;
    for (let i = 0; i < values.length; i++) if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
    taken[best] = 1;
    found.push(best);
  }
  return found;
}

/** Score of every group of adjacent experts: its maximum, or the sum of its two best. */
export function groupScores(choices: Float32Array, groups: number, rule: Routing['groupScore']): Float32Array {
  const size = choices.length / groups;
  return Float32Array.from({ length: groups }, (_, g) => {
    const members = choices.subarray(g * size, (g + 1) * size);
    const [first, second] = largest(members, Math.min(2, size));
    return rule === 'max' || size === 1 ? members[first] : members[first] + members[second];
  });
}

/** The experts of a row, best first. */
export function routerIds(choices: Float32Array, routing: Routing): number[] {
  const { topk, groups, groupTopk, groupScore } = routing;
  if (groups <= 1 || groupTopk >= groups) return largest(choices, topk);
  const size = choices.length / groups;
  const kept = new Set(largest(groupScores(choices, groups, groupScore), groupTopk));
  return largest(
    choices.map((choice, e) => (kept.has(Math.floor(e / size)) ? choice : -Infinity)),
    topk,
  );
}

/** Weights of the chosen: their scores, over their sum (+ 1e-20) when `normalize`, times `scale`. */
export function routerWeights(scores: Float32Array, ids: readonly number[], routing: Routing): Float32Array {
  let sum = 0;
  for (const id of ids) sum += scores[id];
  const factor = routing.scale / (routing.normalize ? sum + 1e-20 : 1);
  return Float32Array.from(ids, (id) => scores[id] * factor);
}
