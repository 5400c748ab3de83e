/** embed: the table's row of every token of the batch. Exact: decoding is. */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { weight } from './shapes.ts';

export const embed = defineOp({
  name: 'embed',
  inputs: [{ name: 'table', kind: 'weight' }],
  attributes: {},
  bound: EXACT,
  shape(context) {
    const table = weight(context, 0, 'table', 2);
    context.expect(table.shape[0] === context.program.vocabSize, 'the table of embed has a row for every token');
    return [{ type: 'f32', rows: 'T', columns: table.shape[1] }];
  },
  reference(context) {
    const table = context.weight(0);
    const { columns, data } = context.output(0);
    context.batch.tokens.forEach((token, row) => {
      data.set(table.row(token), row * columns);
    });
  },
});
