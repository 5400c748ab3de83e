/** add: a + b, one rounding to f32, so exact. */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { floats, output } from './shapes.ts';

export const add = defineOp({
  name: 'add',
  inputs: [
    { name: 'a', kind: 'value' },
    { name: 'b', kind: 'value' },
  ],
  attributes: {},
  bound: EXACT,
  shape(context) {
    const a = floats(context, 0, 'a');
    const b = floats(context, 1, 'b');
    context.expect(a.rows === b.rows && a.columns === b.columns, 'a and b of add have the same shape');
    return [output(a, a.columns)];
  },
  reference(context) {
    const a = context.matrix(0).data;
    const b = context.matrix(1).data;
    const y = context.output(0).data;
    for (let i = 0; i < y.length; i++) y[i] = a[i] + b[i];
  },
});
