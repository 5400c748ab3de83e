/**
 * attention: causal softmax(scale · q·kᵀ)·v over the cache; grouped queries (head h reads kv head ⌊h·kvHeads/heads⌋,
 * arXiv 2305.13245). The row at position p sees positions [0, p]; with a `window` w > 0 the last w of them, (p − w, p].
 * A `sink` is a score of its head that takes part in the softmax and has no value: the weights add up to less than 1.
 * From `tiles` rows of a sequence on, q, k, v and the weights may be rounded to bf16.
 */
import { attendRow } from './attend-row.ts';
import { ARITHMETIC } from './bound.ts';
import { dot, dotMagnitude } from './math.ts';
import { defineOp, type ReferenceContext } from './op.ts';
import { cacheLayer, expectShape, floats, output, size, weight } from './shapes.ts';

export const attention = defineOp({
  name: 'attention',
  inputs: [
    { name: 'q', kind: 'value' },
    { name: 'sinks', kind: 'weight', optional: true },
  ],
  attributes: {
    cache: { type: 'number' },
    heads: { type: 'number' },
    kvHeads: { type: 'number' },
    headSize: { type: 'number' },
    valueSize: { type: 'number' },
    scale: { type: 'number' },
    window: { type: 'number', default: 0 },
  },
  bound: ARITHMETIC,
  shape(context) {
    const q = floats(context, 0, 'q');
    const { streams } = cacheLayer(context);
    const heads = size(context, 'heads');
    const kvHeads = size(context, 'kvHeads');
    const headSize = size(context, 'headSize');
    const valueSize = size(context, 'valueSize');
    context.number('scale');
    const window = context.number('window');
    context.expect(Number.isInteger(window) && window >= 0, 'the window of attention is a whole number, 0 for none');
    if (context.weights[1]) expectShape(context, weight(context, 1, 'sinks', 1), 'sinks', [heads]);
    context.expect(q.rows === 'T' && q.columns === heads * headSize, 'q of attention is [T, heads · headSize]');
    context.expect(heads % kvHeads === 0, 'the heads of attention are a multiple of its kvHeads');
    context.expect(
      streams.length === 2 &&
        streams.every((stream) => stream.heads === kvHeads) &&
        streams[0].width === headSize &&
        streams[1].width === valueSize,
      'the cache layer of attention has streams k [kvHeads, headSize] and v [kvHeads, valueSize]',
    );
    return [output(q, heads * valueSize)];
  },
  reference(context) {
    const q = context.matrix(0);
    const y = context.output(0);
    const magnitude = context.magnitude(0);
    const heads = context.number('heads');
    const kvHeads = context.number('kvHeads');
    const headSize = context.number('headSize');
    const valueSize = context.number('valueSize');
    const scale = context.number('scale');
    const window = context.number('window') || Number.POSITIVE_INFINITY;
    const sinks = context.has(1) ? context.weight(1).row(0) : undefined;
    for (const { firstRow, rows, firstPosition, pages } of context.batch.sequences) {
      const length = firstPosition + rows;
      const steps = rows >= context.tiles ? 1 : 0;
      const scores = new Float64Array(length);
      const scoreMagnitudes = magnitude && new Float64Array(length);
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        const keys = gather(context, pages, 0, kvHead, length, headSize);
        const values = gather(context, pages, 1, kvHead, length, valueSize);
        for (let head = 0; head < heads; head++) {
          if (Math.floor((head * kvHeads) / heads) !== kvHead) continue;
          for (let r = 0; r < rows; r++) {
            const visible = firstPosition + r + 1;
            const first = Math.max(0, visible - window);
            const query = (firstRow + r) * q.columns + head * headSize;
            for (let t = first; t < visible; t++) {
              scores[t] = scale * dot(q.data, query, keys, t * headSize, headSize);
              if (scoreMagnitudes)
                scoreMagnitudes[t] = Math.abs(scale) * dotMagnitude(q.data, query, keys, t * headSize, headSize);
            }
            const row = { scores, scoreMagnitudes, first, visible, sink: sinks?.[head], values, width: valueSize };
            attendRow({ ...row, steps }, y.data, magnitude, (firstRow + r) * y.columns + head * valueSize);
          }
        }
      }
    }
  },
});

/** [positions, width] of one stream and head. */
function gather(
  context: ReferenceContext,
  pages: Int32Array,
  stream: number,
  head: number,
  positions: number,
  width: number,
): Float32Array {
  const dense = new Float32Array(positions * width);
  for (let t = 0; t < positions; t++)
    dense.set(context.kv.read(pages, context.number('cache'), stream, head, t), t * width);
  return context.roundAttended ? dense.map(context.roundAttended) : dense;
}
