/** sample: one token an output row, −1 where the batch asks for none. Log-probabilities leave through the pass result. */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { sampleToken } from './sampling.ts';
import { floats } from './shapes.ts';

export const sample = defineOp({
  name: 'sample',
  inputs: [{ name: 'logits', kind: 'value' }],
  attributes: {},
  bound: EXACT,
  shape(context) {
    const logits = floats(context, 0, 'logits');
    context.expect(
      logits.rows === 'O' && logits.columns === context.program.vocabSize,
      'the logits of sample are [O, V], V the size of the vocabulary',
    );
    return [{ type: 'i32', rows: 'O', columns: 1 }];
  },
  reference(context) {
    const logits = context.matrix(0);
    const tokens = context.outputIntegers(0);
    context.batch.outputs.forEach(({ sampling }, o) => {
      const row = logits.data.subarray(o * logits.columns, (o + 1) * logits.columns);
      tokens.data[o] = sampling ? sampleToken(row, sampling) : -1;
    });
  },
});
