/** Perplexity and divergence of the model that ships, against a computation by hand from the reference's own logits. */
import { expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { load } from '../../src/index.ts';

const TEXT = 'What is 3 + 4?\n3 + 4 = 7';

test('the reference: equal to the formula over its logits', async () => {
  await using engine = await load(undefined, { backend: 'reference', contextLength: 64 });
  const ids = engine.tokenize(TEXT, { addSpecial: true });
  const [logits, vocab] = [await engine.logits(ids), engine.info.vocabSize];
  let sum = 0;
  for (let p = 2; p < ids.length - 1; p++) {
    const row = [...logits.subarray(p * vocab, (p + 1) * vocab)].map(Math.exp);
    sum -= Math.log(row[ids[p + 1]] / row.reduce((a, b) => a + b));
  }
  const result = await engine.perplexity(TEXT, { skip: 2 });
  expect(result.tokens).toBe(ids.length - 3);
  expect(result.negativeLogLikelihood).toBeCloseTo(sum / result.tokens, 5);
  expect(await engine.perplexity(ids, { skip: 2 })).toEqual(result);
});

test('refusals', async () => {
  await using engine = await load(undefined, { backend: 'reference', contextLength: 64 });
  await expect(engine.perplexity('')).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  await expect(engine.perplexity(5 as unknown as string)).rejects.toThrow(/the text is a string, or token ids; got 5/);
  await expect(engine.perplexity(TEXT, { windows: 8 } as object)).rejects.toThrow(/window/);
  await expect(engine.divergence({} as never, TEXT)).rejects.toThrow(/the reference is a loaded model/);
  const signal = AbortSignal.abort();
  await expect(engine.perplexity(TEXT, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
  await expect(engine.divergence(engine, TEXT, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
});

test.skipIf(nativeProblem())('native: no divergence from itself, little from the reference', async () => {
  await using engine = await load(undefined, { contextLength: 64 });
  await using reference = await load(undefined, { backend: 'reference', contextLength: 64 });
  const text = TEXT.repeat(6);
  const options = { window: 24, skip: 4 };
  const itself = await engine.divergence(engine, text, options);
  expect(itself).toMatchObject({ mean: 0, maximum: 0, sameTop: 1 });
  const other = await engine.divergence(reference, text, options);
  expect(other.mean).toBeGreaterThan(0);
  expect(other.mean).toBeLessThan(0.02);
  expect(other.model).toEqual(await engine.perplexity(text, options));
  expect(engine.stats().freePages).toBe(engine.stats().totalPages);
});
