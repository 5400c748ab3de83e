/**
 * mla: multi-head latent attention (arXiv 2405.04434) in its textbook form. Per head, keys and values are expanded from
 * what is cached, c = latent ‖ ropeKey:
 *
 *     k = W_UK·latent ‖ ropeKey      v = W_UV·latent      y = softmax(scale · q·kᵀ)·v, causal
 *
 * W_UK and W_UV come as `kvB` (per head: nope rows, then value rows, of L) or as `kB` (W_UK transposed) and `vB`.
 * Fast kernels absorb W_UK into q and W_UV into y; the magnitudes hold for both ways. From `tiles` rows of a sequence on,
 * all operands may be rounded to bf16: latents and weights, then what is expanded from them, two steps in all.
 */
import { attendRow } from './attend-row.ts';
import { ARITHMETIC } from './bound.ts';
import { dot, dotMagnitude } from './math.ts';
import { defineOp, type ReferenceContext } from './op.ts';
import { cacheLayer, expectShape, floats, output, size, weight } from './shapes.ts';

export const mla = defineOp({
  name: 'mla',
  inputs: [
    { name: 'q', kind: 'value' },
    { name: 'kvB', kind: 'weight', optional: true },
    { name: 'kB', kind: 'weight', optional: true },
    { name: 'vB', kind: 'weight', optional: true },
  ],
  attributes: {
    cache: { type: 'number' },
    heads: { type: 'number' },
    nope: { type: 'number' },
    rope: { type: 'number' },
    latent: { type: 'number' },
    value: { type: 'number' },
    scale: { type: 'number' },
  },
  bound: ARITHMETIC,
  shape(context) {
    const q = floats(context, 0, 'q');
    const { streams } = cacheLayer(context);
    const heads = size(context, 'heads');
    const nope = size(context, 'nope');
    const rope = size(context, 'rope');
    const latent = size(context, 'latent');
    const value = size(context, 'value');
    context.number('scale');
    context.expect(q.rows === 'T' && q.columns === heads * (nope + rope), 'q of mla is [T, heads · (nope + rope)]');
    context.expect(
      streams.length === 1 && streams[0].heads === 1 && streams[0].width === latent + rope,
      'the cache layer of mla has one stream of one head, latent + rope wide',
    );
    const [, whole, keys, values] = context.weights;
    context.expect(
      whole ? !keys && !values : Boolean(keys && values),
      'mla has the weight kvB, or the weights kB and vB',
    );
    if (whole) expectShape(context, whole, 'kvB', [heads * (nope + value), latent]);
    else {
      expectShape(context, weight(context, 2, 'kB', 3), 'kB', [heads, latent, nope]);
      expectShape(context, weight(context, 3, 'vB', 3), 'vB', [heads, value, latent]);
    }
    return [output(q, heads * value)];
  },
  reference(context) {
    const q = context.matrix(0);
    const y = context.output(0);
    const magnitude = context.magnitude(0);
    const heads = context.number('heads');
    const nope = context.number('nope');
    const rope = context.number('rope');
    const latent = context.number('latent');
    const value = context.number('value');
    const scale = context.number('scale');
    const cached = context.batch.sequences.map(({ firstPosition, rows, pages }) =>
      readCache(context, pages, firstPosition + rows, latent, rope),
    );
    for (let head = 0; head < heads; head++) {
      const up = headWeights(context, head, nope, value, latent);
      context.batch.sequences.forEach(({ firstRow, rows, firstPosition }, s) => {
        const length = firstPosition + rows;
        const steps = rows >= context.tiles ? 2 : 0;
        const keys = expand(context, cached[s].latents, length, up.keys, nope, latent);
        const values = expand(context, cached[s].latents, length, up.values, value, latent);
        const scores = new Float64Array(length);
        const scoreMagnitudes = magnitude && new Float64Array(length);
        for (let r = 0; r < rows; r++) {
          const visible = firstPosition + r + 1;
          const query = (firstRow + r) * q.columns + head * (nope + rope);
          for (let t = 0; t < visible; t++) {
            let sum = dot(q.data, query + nope, cached[s].ropeKeys, t * rope, rope);
            for (let i = 0; i < nope; i++) sum += q.data[query + i] * keys.data[t * nope + i];
            scores[t] = scale * sum;
            if (!scoreMagnitudes) continue;
            let size = dotMagnitude(q.data, query + nope, cached[s].ropeKeys, t * rope, rope);
            for (let i = 0; i < nope; i++) size += Math.abs(q.data[query + i]) * keys.magnitudes![t * nope + i];
            scoreMagnitudes[t] = Math.abs(scale) * size;
          }
          const row = { scores, scoreMagnitudes, visible, values: values.data, width: value, steps };
          const at = (firstRow + r) * y.columns + head * value;
          attendRow({ ...row, valueMagnitudes: values.magnitudes }, y.data, magnitude, at);
        }
      });
    }
  },
});

/** What the cache holds of positions [0, length), taken apart. */
function readCache(context: ReferenceContext, pages: Int32Array, length: number, latent: number, rope: number) {
  const latents = new Float32Array(length * latent);
  const ropeKeys = new Float32Array(length * rope);
  for (let t = 0; t < length; t++) {
    const entry = context.kv.read(pages, context.number('cache'), 0, 0, t);
    latents.set(entry.subarray(0, latent), t * latent);
    ropeKeys.set(entry.subarray(latent), t * rope);
  }
  return { latents, ropeKeys: context.roundAttended ? ropeKeys.map(context.roundAttended) : ropeKeys };
}

/** W_UK [nope, L] and W_UV [value, L] of one head. */
function headWeights(context: ReferenceContext, head: number, nope: number, value: number, latent: number) {
  const keys = new Float32Array(nope * latent);
  const values = new Float32Array(value * latent);
  if (context.has(1)) {
    const kvB = context.weight(1);
    const first = head * (nope + value);
    for (let n = 0; n < nope; n++) keys.set(kvB.row(first + n), n * latent);
    for (let v = 0; v < value; v++) values.set(kvB.row(first + nope + v), v * latent);
  } else {
    const kB = context.weight(2);
    for (let l = 0; l < latent; l++) {
      const row = kB.row(head * latent + l);
      for (let n = 0; n < nope; n++) keys[n * latent + l] = row[n];
    }
    const vB = context.weight(3);
    for (let v = 0; v < value; v++) values.set(vB.row(head * value + v), v * latent);
  }
  return { keys, values };
}

/** latents [positions, L] · up [width, L]ᵀ → [positions, width], with Σ|a·b| where asked. */
function expand(
  context: ReferenceContext,
  latents: Float32Array,
  positions: number,
  up: Float32Array,
  width: number,
  latent: number,
) {
  const data = new Float64Array(positions * width);
  const magnitudes = context.magnitude(0) ? new Float64Array(positions * width) : undefined;
  for (let t = 0; t < positions; t++) {
    for (let i = 0; i < width; i++) {
      data[t * width + i] = dot(latents, t * latent, up, i * latent, latent);
      if (magnitudes) magnitudes[t * width + i] = dotMagnitude(latents, t * latent, up, i * latent, latent);
    }
  }
  return { data: context.roundAttended ? data.map(context.roundAttended) : data, magnitudes };
}
