import { describe, expect, it } from 'vitest';
import { divergence, type LogitSource, loss, measureDivergence, measurePerplexity } from './perplexity.ts';

const VOCAB = 5;

/** Logits that depend on the position and the last token; `tilt` makes another model of it. Delivers in uneven pieces. */
function source(tilt = 0, contextLength = 100): LogitSource & { readonly seen: number[][] } {
  const seen: number[][] = [];
  return {
    contextLength,
    seen,
    async stream(ids, from, take) {
      seen.push([...ids]);
      for (let p = from; p < ids.length; p++) {
        if (p % 3 === 1) await new Promise((resolve) => setImmediate(resolve));
        take(p, row(p, ids[p], tilt));
      }
    },
  };
}

function row(position: number, token: number, tilt: number): Float32Array {
  return Float32Array.from({ length: VOCAB }, (_, v) => Math.sin(position * 3 + token + v) * 2 + tilt * v);
}

function softmax(logits: Float32Array): number[] {
  const exps = [...logits].map(Math.exp);
  const sum = exps.reduce((a, b) => a + b);
  return exps.map((value) => value / sum);
}

const text = Array.from({ length: 23 }, (_, i) => (i * 7 + 3) % VOCAB);

describe('loss', () => {
  it('is −ln of the softmax, also of large logits', () => {
    expect(loss(Float32Array.of(0, 0, 0, 0), 2)).toBeCloseTo(Math.log(4), 12);
    expect(loss(Float32Array.of(1000, 1000 - Math.log(3)), 1)).toBeCloseTo(Math.log(4), 3);
  });
});

describe('divergence', () => {
  it('is Σ p ln(p / q)', () => {
    const [p, q] = [Float32Array.of(0, Math.log(3)), Float32Array.of(0, 0)]; // [¼, ¾] against [½, ½]
    expect(divergence(p, q)).toBeCloseTo(0.25 * Math.log(0.5) + 0.75 * Math.log(1.5), 6);
    expect(divergence(p, p)).toBe(0);
  });
  it('is infinite where the model excludes what the reference allows, and not where both exclude it', () => {
    const excluded = Float32Array.of(0, Number.NEGATIVE_INFINITY);
    expect(divergence(Float32Array.of(0, 0), excluded)).toBe(Number.POSITIVE_INFINITY);
    expect(divergence(excluded, excluded)).toBe(0);
  });
});

describe('perplexity', () => {
  it('is what the formula says, window by window', async () => {
    const result = await measurePerplexity(source(), text, undefined, { window: 10, skip: 4 });
    const losses: number[] = [];
    for (const start of [0, 10]) // the last three tokens make no window: 4 are skipped
      for (let p = 4; p < 9; p++) losses.push(-Math.log(softmax(row(p, text[start + p], 0))[text[start + p + 1]]));
    const mean = losses.reduce((a, b) => a + b) / losses.length;
    const variance = losses.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (losses.length - 1);
    expect(result).toMatchObject({ tokens: 10, windows: 2, window: 10, skip: 4 });
    expect(result.negativeLogLikelihood).toBeCloseTo(mean, 6);
    expect(result.perplexity).toBeCloseTo(Math.exp(mean), 5);
    expect(result.standardError).toBeCloseTo(Math.exp(mean) * Math.sqrt(variance / losses.length), 5);
  });

  it('skips half of a window by default, scores a short last window, tells the progress', async () => {
    const progress: number[] = [];
    const result = await measurePerplexity(source(0, 16), text, undefined, {
      skip: 2,
      onProgress: ({ done, total }) => progress.push(done, total),
    });
    expect(result).toMatchObject({ window: 16, windows: 2, tokens: 13 + 4 });
    expect(progress.slice(-2)).toEqual([17, 17]);
    expect(await measurePerplexity(source(), text, undefined, {})).toMatchObject({ window: 23, skip: 11, tokens: 11 });
    expect(await measurePerplexity(source(), [1, 2], undefined, {})).toMatchObject({ tokens: 1, skip: 0 });
  });

  it('starts every window with the begin token', async () => {
    const model = source();
    await measurePerplexity(model, [4, ...text], 4, { window: 8, skip: 0 });
    expect(model.seen.map(([first]) => first)).toEqual([4, 4, 4]);
    expect(model.seen[1].slice(1)).toEqual(text.slice(8, 14));
  });

  it.each([
    [[1], {}, /at least two tokens/],
    [text, { window: 10, skip: 9 }, /at least two tokens more than are skipped; 23 tokens in windows of 10, 9 skipped/],
    [text, { window: 101 }, /window is an integer in \[2, 100\]/],
    [text, { skip: -1 }, /skip is an integer in \[0, 100\]/],
  ])('refuses %j %j', async (ids, options, message) => {
    await expect(measurePerplexity(source(), ids, undefined, options)).rejects.toThrow(message);
  });
});

describe('divergence of two models', () => {
  const options = { window: 12, skip: 3 };

  it('is 0 for the same model', async () => {
    const result = await measureDivergence(source(), source(), text, undefined, options);
    expect(result).toMatchObject({ mean: 0, median: 0, p99: 0, maximum: 0, standardError: 0, sameTop: 1 });
    expect(result.model).toEqual(result.reference);
  });

  it('is the mean over positions, of reference against model', async () => {
    const result = await measureDivergence(source(0.7), source(), text, undefined, options);
    const each: number[] = [];
    let same = 0;
    for (const [start, length] of [
      [0, 12],
      [12, 11],
    ])
      for (let p = 3; p < length - 1; p++) {
        const token = text[start + p];
        const [mine, theirs] = [softmax(row(p, token, 0.7)), softmax(row(p, token, 0))];
        each.push(theirs.reduce((sum, probability, v) => sum + probability * Math.log(probability / mine[v]), 0));
        if (mine.indexOf(Math.max(...mine)) === theirs.indexOf(Math.max(...theirs))) same++;
      }
    expect(result.mean).toBeCloseTo(each.reduce((a, b) => a + b) / each.length, 6);
    expect(result.maximum).toBeCloseTo(Math.max(...each), 6);
    expect(result.sameTop).toBe(same / each.length);
    expect(result.reference).toEqual(await measurePerplexity(source(), text, undefined, options));
    expect(result.model).toEqual(await measurePerplexity(source(0.7), text, undefined, options));
  });

  it('stops the other model where one fails', async () => {
    let told: AbortSignal | undefined;
    const patient: LogitSource = {
      contextLength: 100,
      stream: (_, __, ___, signal) =>
        new Promise((_resolve, reject) => {
          told = signal;
          signal?.addEventListener('abort', () => reject(signal.reason));
        }),
    };
    const broken: LogitSource = { contextLength: 100, stream: () => Promise.reject(new Error('broken')) };
    await expect(measureDivergence(patient, broken, text, undefined, options)).rejects.toThrow('broken');
    expect(told?.aborted).toBe(true);
  });
});
