/**
 * linear: y = x·Wᵀ + bias, x rounded to the step's activation format first; on tiles (at least `tiles` rows of x) x and W
 * to bf16.
 */
import { roundActivations, roundForTiles } from './activation.ts';
import { ARITHMETIC } from './bound.ts';
import { dot, dotMagnitude } from './math.ts';
import { defineOp } from './op.ts';
import { expectShape, floats, output, weight } from './shapes.ts';

export const linear = defineOp({
  name: 'linear',
  inputs: [
    { name: 'x', kind: 'value' },
    { name: 'weight', kind: 'weight' },
    { name: 'bias', kind: 'weight', optional: true },
  ],
  attributes: {},
  bound: ARITHMETIC,
  shape(context) {
    const x = floats(context, 0, 'x');
    const w = weight(context, 1, 'weight', 2);
    context.expect(w.shape[1] === x.columns, 'the weight of linear has as many columns as x');
    if (context.weights[2]) expectShape(context, weight(context, 2, 'bias', 1), 'bias', [w.shape[0]]);
    return [output(x, w.shape[0])];
  },
  reference(context) {
    const given = context.matrix(0);
    const onTiles = given.rows >= context.tiles;
    const x = onTiles ? { ...given, data: roundForTiles(given.data) } : roundActivations(context.activation, given);
    const w = context.weight(1);
    const y = context.output(0);
    const magnitude = context.magnitude(0);
    const bias = context.has(2) ? context.weight(2).row(0) : undefined;
    for (let n = 0; n < w.rows; n++) {
      const row = onTiles ? roundForTiles(w.row(n)) : w.row(n);
      for (let t = 0; t < x.rows; t++) {
        const at = t * y.columns + n;
        y.data[at] = dot(x.data, t * x.columns, row, 0, x.columns) + (bias?.[n] ?? 0);
        if (magnitude)
          magnitude[at] = dotMagnitude(x.data, t * x.columns, row, 0, x.columns) + Math.abs(bias?.[n] ?? 0);
      }
    }
  },
});
