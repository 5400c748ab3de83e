/** How likely each token of a prompt was after those before it: what evaluation harnesses score answers by. */
import type { LogitSource } from './perplexity.ts';

export interface PromptLogprob {
  readonly id: number;
  /** Natural logarithm of its probability; undefined of the first token, which nothing is before. */
  readonly logprob: number | undefined;
  /** The likeliest at its place, best first, as many as asked. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** One a token, in order. Logits are looked at as passes make them and dropped. */
export async function promptLogprobs(
  model: LogitSource,
  ids: readonly number[],
  top: number,
  signal?: AbortSignal,
): Promise<PromptLogprob[]> {
  const judged: PromptLogprob[] = [{ id: ids[0], logprob: undefined, top: [] }];
  if (ids.length === 1) return judged;
  const take = (position: number, logits: Float32Array) => {
    const id = ids[position + 1];
    const log = logarithmOfSum(logits);
    const best = likeliest(logits, top).map((id) => ({ id, logprob: logits[id] - log }));
    judged.push({ id, logprob: logits[id] - log, top: best });
  };
  await model.stream(ids.slice(0, -1), 0, take, signal);
  return judged;
}

function logarithmOfSum(logits: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}

/** Ids of the `count` largest, largest first; of equals the lower id. `count` is small. */
function likeliest(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === count && (count === 0 || logits[id] <= logits[best[count - 1]])) continue;
    const at = best.findLastIndex((other) => logits[other] >= logits[id]) + 1;
    best.splice(at, 0, id);
    if (best.length > count) best.pop();
  }
  return best;
}
