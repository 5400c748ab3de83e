/**
 * rank-experts: what a router chose, in the order of what it weighs, the heaviest first; equals stay in the order in which
 * they were chosen. A router orders by what it chooses by, which a correction bias makes another order. −1 (no expert) and
 * weights that are NaN come last. Moves numbers, so exact.
 */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { floats, integers, output } from './shapes.ts';

export const rankExperts = defineOp({
  name: 'rank-experts',
  inputs: [
    { name: 'ids', kind: 'value' },
    { name: 'weights', kind: 'value' },
  ],
  attributes: {},
  bound: EXACT,
  shape(context) {
    const ids = integers(context, 0, 'ids');
    const weights = floats(context, 1, 'weights');
    context.expect(
      ids.rows === weights.rows && ids.columns === weights.columns,
      'rank-experts has as many ids and weights as one another',
    );
    return [{ type: 'i32', rows: ids.rows, columns: ids.columns }, output(weights, weights.columns)];
  },
  reference(context) {
    const ids = context.integers(0);
    const weights = context.matrix(1);
    const ranked = context.outputIntegers(0).data;
    const shares = context.output(1).data;
    const { rows, columns } = ids;
    for (let t = 0; t < rows; t++) {
      const start = t * columns;
      const heaviness = (j: number) => {
        const weight = weights.data[start + j];
        return ids.data[start + j] < 0 || Number.isNaN(weight) ? -Infinity : weight;
      };
      const order = Array.from({ length: columns }, (_, j) => j);
      order.sort((a, b) => {
        const [x, y] = [heaviness(a), heaviness(b)];
        return x === y ? a - b : y > x ? 1 : -1;
      });
      order.forEach((j, place) => {
        ranked[start + place] = ids.data[start + j];
        shares[start + place] = weights.data[start + j];
      });
    }
  },
});
