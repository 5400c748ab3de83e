/**
 * rope: rotary position embedding (arXiv 2104.09864) of columns [offset, offset+width) of every head; the rest is copied.
 *
 *     pairs   (2i, 2i+1)        halves  (i, i + width/2)        angle = position · frequencies[i], in f64
 *     (a, b) → magnitude · (a·cos − b·sin, a·sin + b·cos)
 */
import { ARITHMETIC } from './bound.ts';
import { defineOp } from './op.ts';
import { floats, output, size } from './shapes.ts';

export const rope = defineOp({
  name: 'rope',
  inputs: [{ name: 'x', kind: 'value' }],
  attributes: {
    headSize: { type: 'number' },
    offset: { type: 'number' },
    width: { type: 'number' },
    style: { type: 'string' },
    frequencies: { type: 'numbers' },
    magnitude: { type: 'number' },
  },
  // a·cos − b·sin cancels: the error is one of |a| + |b|. The angle is f64: in f32 it would be off by position · 2^-24.
  bound: ARITHMETIC,
  shape(context) {
    const x = floats(context, 0, 'x');
    const headSize = size(context, 'headSize');
    const width = size(context, 'width');
    const offset = context.number('offset');
    const { frequencies } = context.step.attributes;
    context.expect(x.rows === 'T', 'rope works on rows that have a position (T)');
    context.expect(x.columns % headSize === 0, 'the columns of rope are a multiple of headSize');
    context.expect(
      Number.isInteger(offset) && offset >= 0 && offset + width <= headSize,
      'rope rotates columns [offset, offset + width) inside a head',
    );
    context.expect(['pairs', 'halves'].includes(context.text('style')), 'the style of rope is pairs or halves');
    context.expect(
      Array.isArray(frequencies) && frequencies.length * 2 === width,
      'rope has width / 2 frequencies, one a pair',
    );
    return [output(x, x.columns)];
  },
  reference(context) {
    const x = context.matrix(0);
    const y = context.output(0).data;
    const magnitudes = context.magnitude(0);
    const headSize = context.number('headSize');
    const offset = context.number('offset');
    const half = context.number('width') / 2;
    const paired = context.text('style') === 'pairs';
    const frequencies = context.numbers('frequencies');
    const gain = context.number('magnitude');
    y.set(x.data);
    for (let t = 0; t < x.rows; t++) {
      for (let i = 0; i < half; i++) {
        const angle = context.positions[t] * frequencies[i];
        const cos = Math.cos(angle) * gain;
        const sin = Math.sin(angle) * gain;
        for (let head = t * x.columns; head < (t + 1) * x.columns; head += headSize) {
          const first = head + offset + (paired ? 2 * i : i);
          const second = first + (paired ? 1 : half);
          const a = x.data[first];
          const b = x.data[second];
          y[first] = a * cos - b * sin;
          y[second] = a * sin + b * cos;
          if (magnitudes) magnitudes[first] = magnitudes[second] = (Math.abs(a) + Math.abs(b)) * Math.abs(gain);
        }
      }
    }
  },
});
