/** gather-rows: the rows the batch names as outputs; what the last layers compute is [O], not [T]. */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { floats } from './shapes.ts';

export const gatherRows = defineOp({
  name: 'gather-rows',
  inputs: [{ name: 'x', kind: 'value' }],
  attributes: {},
  bound: EXACT,
  shape(context) {
    const x = floats(context, 0, 'x');
    context.expect(x.rows === 'T', 'gather-rows takes rows of the pass (T)');
    return [{ type: 'f32', rows: 'O', columns: x.columns }];
  },
  reference(context) {
    const x = context.matrix(0);
    const y = context.output(0);
    context.batch.outputs.forEach(({ row }, o) => {
      y.data.set(x.data.subarray(row * x.columns, (row + 1) * x.columns), o * x.columns);
    });
  },
});
