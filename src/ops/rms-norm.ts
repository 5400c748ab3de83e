/**
 * rms-norm: y = x / √(mean(x²) + ε) · w over every group of `group` adjacent columns (arXiv 1910.07467). The group is the
 * whole row, or one head for the norms of q and k.
 */
import { ARITHMETIC } from './bound.ts';
import { dot } from './math.ts';
import { defineOp } from './op.ts';
import { expectShape, floats, output, size, weight } from './shapes.ts';

export const rmsNorm = defineOp({
  name: 'rms-norm',
  inputs: [
    { name: 'x', kind: 'value' },
    { name: 'weight', kind: 'weight' },
  ],
  attributes: { epsilon: { type: 'number' }, group: { type: 'number' } },
  // The sum of squares has one sign: its relative error is that of the accumulation, and ε_out alone bounds y.
  bound: ARITHMETIC,
  shape(context) {
    const x = floats(context, 0, 'x');
    const group = size(context, 'group');
    expectShape(context, weight(context, 1, 'weight', 1), 'weight', [group]);
    context.expect(x.columns % group === 0, 'the columns of rms-norm are a multiple of its group');
    context.expect(context.number('epsilon') >= 0, 'the epsilon of rms-norm is not negative');
    return [output(x, x.columns)];
  },
  reference(context) {
    const { data: x } = context.matrix(0);
    const w = context.weight(1).row(0);
    const y = context.output(0).data;
    const epsilon = context.number('epsilon');
    const group = context.number('group');
    for (let start = 0; start < x.length; start += group) {
      const scale = 1 / Math.sqrt(dot(x, start, x, start, group) / group + epsilon);
      for (let i = 0; i < group; i++) y[start + i] = x[start + i] * scale * w[i];
    }
  },
});
