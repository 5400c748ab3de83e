/**
 * router: which experts a row goes to, and with what weights. Group-limited top-k as DeepSeek-V2/V3 (arXiv 2412.19437);
 * groups = groupTopk = 1 is plain top-k.
 */
import { ARITHMETIC } from './bound.ts';
import { defineOp, type ReferenceContext } from './op.ts';
import { type Routing, routerChoices, routerIds, routerScores, routerWeights } from './routing.ts';
import { expectShape, floats, size, weight } from './shapes.ts';

export const router = defineOp({
  name: 'router',
  inputs: [
    { name: 'logits', kind: 'value' },
    { name: 'bias', kind: 'weight', optional: true },
  ],
  attributes: {
    topk: { type: 'number' },
    score: { type: 'string' },
    groups: { type: 'number' },
    groupTopk: { type: 'number' },
    groupScore: { type: 'string' },
    normalize: { type: 'boolean' },
    scale: { type: 'number' },
  },
  // The argument of exp is a difference of f32: a score is off by ε times the spread of the logits.
  bound: ARITHMETIC,
  shape(context) {
    const { rows, columns } = floats(context, 0, 'logits');
    if (context.weights[1]) expectShape(context, weight(context, 1, 'bias', 1), 'bias', [columns]);
    const topk = size(context, 'topk');
    const groups = size(context, 'groups');
    const groupTopk = size(context, 'groupTopk');
    context.number('scale');
    context.expect(['softmax', 'sigmoid'].includes(context.text('score')), 'router.score is softmax or sigmoid');
    context.expect(['max', 'top2'].includes(context.text('groupScore')), 'router.groupScore is max or top2');
    context.expect(columns % groups === 0, 'the experts of router divide evenly into its groups');
    context.expect(groupTopk <= groups, 'router keeps at most as many groups as there are');
    context.expect(topk <= (columns / groups) * groupTopk, 'router chooses at most the experts of the groups it keeps');
    return [
      { type: 'i32', rows, columns: topk },
      { type: 'f32', rows, columns: topk },
    ];
  },
  reference(context) {
    const logits = context.matrix(0);
    const bias = context.has(1) ? context.weight(1).row(0) : undefined;
    const ids = context.outputIntegers(0);
    const weights = context.output(1);
    const magnitude = context.magnitude(1);
    const routing = routingOf(context);
    for (let t = 0; t < logits.rows; t++) {
      const row = logits.data.subarray(t * logits.columns, (t + 1) * logits.columns);
      const scores = routerScores(row, routing.score);
      const chosen = routerIds(routerChoices(scores, bias), routing);
      const shares = routerWeights(scores, chosen, routing);
      ids.data.set(chosen, t * routing.topk);
      weights.data.set(shares, t * routing.topk);
      if (!magnitude) continue;
      let spread = 0;
      for (const logit of row) spread = Math.max(spread, Math.abs(logit));
      magnitude.set(
        shares.map((share) => Math.abs(share) * spread),
        t * routing.topk,
      );
    }
  },
});

/** The attributes of a router step. */
export function routingOf(context: Pick<ReferenceContext, 'number' | 'text' | 'flag'>): Routing {
  return {
    topk: context.number('topk'),
    score: context.text('score') === 'sigmoid' ? 'sigmoid' : 'softmax',
    groups: context.number('groups'),
    groupTopk: context.number('groupTopk'),
    groupScore: context.text('groupScore') === 'top2' ? 'top2' : 'max',
    normalize: context.flag('normalize'),
    scale: context.number('scale'),
  };
}
