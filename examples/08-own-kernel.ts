// Compute a step yourself: register a kernel, name it in a rule; the rest of the model stays as it is.
import { load, registerKernel } from 'tandem';

let rows = 0;
registerKernel({
  name: 'my-glu',
  op: 'glu', // its operands and attributes: docs/reference/ops.md
  run(context) {
    const gate = context.matrix(0).data;
    const up = context.matrix(1).data;
    const y = context.output(0);
    for (let i = 0; i < y.data.length; i++) y.data[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
    rows += y.rows;
  },
});

await using engine = await load(undefined, {
  rules: [{ match: { op: 'glu', layers: '1-last' }, place: { kernel: 'my-glu' } }], // or a file: rules: 'my.yaml'
});
const { text } = await engine.chat([{ role: 'user', content: 'What is 3 + 4?' }]);
console.log(`${text}; ${rows} rows were computed here`);
