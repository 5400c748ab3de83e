/**
 * Judges a router's choice. Its scores come out of an exp that may differ in the last bits, so two scores that tie within
 * the bound may be taken in either order; everything else is exact. Weights are judged for the experts that were chosen.
 */
import { errorRatio, tolerance } from '../ops/bound.ts';
import type { Op } from '../ops/op.ts';
import { routingOf } from '../ops/router.ts';
import { groupScores, largest, type Routing, routerChoices, routerScores, routerWeights } from '../ops/routing.ts';
import type { Program, Step } from '../program/program.ts';
import { attributeOf } from '../program/rules.ts';
import type { Stepper } from './backend.ts';
import type { ReferenceStepper } from './reference.ts';

export interface RouterJudged {
  readonly op: Op;
  readonly step: Step;
  readonly program: Program;
  readonly right: Stepper & Partial<ReferenceStepper>;
  /** ids and weights of both sides; the right's are replaced by those that the left's choice would have given. */
  readonly lefts: readonly (Float32Array | Int32Array)[];
  readonly rights: (Float32Array | Int32Array)[];
}

/** `ties`: rows that chose otherwise within the bound. `failed`: a row that chose what no tie explains. */
export async function judgeRouter(judged: RouterJudged): Promise<{ ties: number; failed: boolean }> {
  const { op, step, program, right, lefts, rights } = judged;
  const routing = routingOf({
    number: (name) => attributeOf(step, op, name) as number,
    text: (name) => attributeOf(step, op, name) as string,
    flag: (name) => attributeOf(step, op, name) as boolean,
  });
  const operand = step.inputs[0];
  const biasOperand = step.inputs[1] ?? null;
  if (operand?.kind !== 'value') return { ties: 0, failed: true };
  const logits = await right.read(operand.value);
  const bias = biasOperand?.kind === 'weight' ? right.weightRow?.(biasOperand.weight, 0) : undefined;
  const stride = program.values[operand.value].columns;
  const { topk } = routing;
  let ties = 0;
  let failed = false;
  for (let row = 0; row * topk < lefts[0].length; row++) {
    const range = [row * topk, (row + 1) * topk] as const;
    const ids = [...lefts[0].subarray(...range)];
    if (ids.every((id, j) => id === rights[0][range[0] + j])) continue;
    const start = row * stride + operand.start;
    const rowLogits = Float32Array.from(logits.subarray(start, start + operand.columns));
    const scores = routerScores(rowLogits, routing.score);
    if (!isChoiceWithin(ids, rowLogits, routerChoices(scores, bias), routing, op)) {
      failed = true;
      continue;
    }
    ties++;
    rights[0].set(ids, range[0]);
    rights[1].set(routerWeights(scores, ids, routing), range[0]);
  }
  return { ties, failed };
}

/** True where some choices, each within its bound of those given, would have led to these ids in this order. */
export function isChoiceWithin(
  ids: readonly number[],
  logits: Float32Array,
  choices: Float32Array,
  routing: Routing,
  op: Pick<Op, 'bound'>,
): boolean {
  const { groups, groupTopk, groupScore } = routing;
  if (new Set(ids).size !== ids.length || ids.some((id) => !(id >= 0 && id < choices.length))) return false;
  const spread = logits.reduce((most, logit) => Math.max(most, Math.abs(logit)), 1);
  const slack = (choice: number) => 2 * tolerance(op.bound, choice, spread);
  const above = (a: number, b: number) => a >= b || errorRatio(op.bound, a, b, spread) <= 2;
  for (let j = 1; j < ids.length; j++) if (!above(choices[ids[j - 1]], choices[ids[j]])) return false;

  // Groups: those the ids use must be able to be kept; those that are kept for certain compete, used or not.
  const size = choices.length / groups;
  const groupOf = (expert: number) => Math.floor(expert / size);
  const used = new Set(ids.map(groupOf));
  const competing = new Set(used);
  if (groups > 1 && groupTopk < groups) {
    const scores = groupScores(choices, groups, groupScore);
    const order = largest(scores, groupTopk + 1);
    const lastKept = scores[order[groupTopk - 1]];
    const firstDropped = scores[order[groupTopk]];
    if (used.size > groupTopk || [...used].some((group) => !above(scores[group], lastKept))) return false;
    for (let group = 0; group < groups; group++)
      if (scores[group] > firstDropped + slack(firstDropped)) competing.add(group);
  } else for (let group = 0; group < groups; group++) competing.add(group);

  const last = choices[ids[ids.length - 1]];
  const chosen = new Set(ids);
  return choices.every((choice, e) => chosen.has(e) || !competing.has(groupOf(e)) || above(last, choice));
}
