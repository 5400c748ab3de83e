/** mla-append: stores latent ‖ ropeKey of every row at its position: all that multi-head latent attention caches. */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { cacheLayer, floats } from './shapes.ts';

export const mlaAppend = defineOp({
  name: 'mla-append',
  inputs: [
    { name: 'latent', kind: 'value' },
    { name: 'ropeKey', kind: 'value' },
  ],
  attributes: { cache: { type: 'number' } },
  bound: EXACT,
  shape(context) {
    const { streams } = cacheLayer(context);
    const latent = floats(context, 0, 'latent');
    const ropeKey = floats(context, 1, 'ropeKey');
    context.expect(latent.rows === 'T' && ropeKey.rows === 'T', 'mla-append stores the rows of the pass (T)');
    context.expect(
      streams.length === 1 && streams[0].heads === 1 && streams[0].width === latent.columns + ropeKey.columns,
      'the cache layer of mla-append has one stream of one head, as wide as latent and ropeKey together',
    );
    return [];
  },
  reference(context) {
    const latent = context.matrix(0);
    const ropeKey = context.matrix(1);
    const entry = new Float32Array(latent.columns + ropeKey.columns);
    for (const { firstRow, rows, firstPosition, pages } of context.batch.sequences) {
      for (let row = firstRow; row < firstRow + rows; row++) {
        entry.set(latent.data.subarray(row * latent.columns, (row + 1) * latent.columns));
        entry.set(ropeKey.data.subarray(row * ropeKey.columns, (row + 1) * ropeKey.columns), latent.columns);
        context.kv.write(pages, context.number('cache'), 0, 0, firstPosition + row - firstRow, entry);
      }
    }
  },
});
