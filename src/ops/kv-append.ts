/** kv-append: stores k and v of every row at its position; columns are heads × width, as the layer's two streams say. */
import { EXACT } from './bound.ts';
import { defineOp } from './op.ts';
import { cacheLayer, floats } from './shapes.ts';

export const kvAppend = defineOp({
  name: 'kv-append',
  inputs: [
    { name: 'k', kind: 'value' },
    { name: 'v', kind: 'value' },
  ],
  attributes: { cache: { type: 'number' } },
  bound: EXACT,
  shape(context) {
    const { streams } = cacheLayer(context);
    const k = floats(context, 0, 'k');
    const v = floats(context, 1, 'v');
    context.expect(k.rows === 'T' && v.rows === 'T', 'kv-append stores the rows of the pass (T)');
    context.expect(streams.length === 2, 'the cache layer of kv-append has two streams, k and v');
    context.expect(
      k.columns === streams[0].heads * streams[0].width && v.columns === streams[1].heads * streams[1].width,
      'k and v of kv-append have heads × width columns of their streams',
    );
    context.expect(streams[0].heads === streams[1].heads, 'k and v of a cache layer have as many heads');
    return [];
  },
  reference(context) {
    const { streams } = context.kv.layout.layers[context.number('cache')];
    streams.forEach(({ heads, width }, stream) => {
      const x = context.matrix(stream);
      for (const { firstRow, rows, firstPosition, pages } of context.batch.sequences) {
        for (let i = 0; i < rows; i++) {
          for (let head = 0; head < heads; head++) {
            const start = (firstRow + i) * x.columns + head * width;
            const values = x.data.subarray(start, start + width);
            context.kv.write(pages, context.number('cache'), stream, head, firstPosition + i, values);
          }
        }
      }
    });
  },
});
