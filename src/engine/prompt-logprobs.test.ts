import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { LogitSource } from './perplexity.ts';
import { promptLogprobs } from './prompt-logprobs.ts';

const source = (rows: readonly Float32Array[]): LogitSource => ({
  contextLength: 100,
  stream: async (ids, from, take) => {
    for (let position = from; position < ids.length; position++) take(position, rows[position]);
  },
});

test('log-probabilities of a prompt are those of a softmax; alternatives are the likeliest', async () => {
  const row = fc
    .array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: 6, maxLength: 6 })
    .map((values) => Float32Array.from(values));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(5), { minLength: 1, maxLength: 5 }),
      fc.array(row, { minLength: 5, maxLength: 5 }),
      fc.nat(6),
      async (ids, rows, top) => {
        const judged = await promptLogprobs(source(rows), ids, top);
        expect(judged.map(({ id }) => id)).toEqual(ids);
        expect(judged[0]).toEqual({ id: ids[0], logprob: undefined, top: [] });
        judged.slice(1).forEach(({ id, logprob, top: best }, i) => {
          const sum = rows[i].reduce((total, logit) => total + Math.exp(logit), 0);
          expect(logprob).toBeCloseTo(rows[i][id] - Math.log(sum), 5);
          const order = [...rows[i].keys()].sort((a, b) => rows[i][b] - rows[i][a] || a - b);
          expect(best.map((other) => other.id)).toEqual(order.slice(0, top));
        });
      },
    ),
  );
});
