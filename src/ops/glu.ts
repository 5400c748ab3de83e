/** glu: silu(gate) · up, the gated unit of feed-forward layers (arXiv 2002.05202). */
import { ARITHMETIC } from './bound.ts';
import { silu } from './math.ts';
import { defineOp } from './op.ts';
import { floats, output } from './shapes.ts';

export const glu = defineOp({
  name: 'glu',
  inputs: [
    { name: 'gate', kind: 'value' },
    { name: 'up', kind: 'value' },
  ],
  attributes: { activation: { type: 'string' } },
  bound: ARITHMETIC,
  shape(context) {
    const gate = floats(context, 0, 'gate');
    const up = floats(context, 1, 'up');
    context.expect(gate.rows === up.rows && gate.columns === up.columns, 'gate and up of glu have the same shape');
    context.expect(context.text('activation') === 'silu', 'the activation of glu is silu');
    return [output(gate, gate.columns)];
  },
  reference(context) {
    const gate = context.matrix(0).data;
    const up = context.matrix(1).data;
    const y = context.output(0).data;
    for (let i = 0; i < y.length; i++) y[i] = silu(gate[i]) * up[i];
  },
});
