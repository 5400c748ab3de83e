/** Each reference against a second, naive way to say the same. Shape rules are tested in program/validate.test.ts. */
import { describe, expect, it } from 'vitest';
import {
  expectedOutputs,
  floats,
  type GivenValue,
  type GivenWeight,
  integers,
  type OpCase,
  weight,
} from '../../test/conformance/harness.ts';
import { OPS, opNamed } from './index.ts';

/** Row r of a matrix or f32 weight as an array. */
function row({ data }: { data: Float32Array | Int32Array }, columns: number, r: number): number[] {
  return [...data.subarray(r * columns, (r + 1) * columns)];
}

function numbers({ bytes }: GivenWeight): { data: Float32Array } {
  return { data: new Float32Array(bytes.slice().buffer) };
}

const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const softmax = (scores: number[]) => {
  const all = scores.reduce((sum, score) => sum + Math.exp(score), 0);
  return scores.map((score) => Math.exp(score) / all);
};

async function run(test: OpCase): Promise<Float32Array> {
  return (await expectedOutputs(test))[0].data as Float32Array;
}

function expectClose(actual: Float32Array, expected: number[]): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i])).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(expected[i])));
  });
}

describe('the table', () => {
  it('has the ops of docs/reference/ops.md', () => {
    const named =
      'embed rms-norm linear rope kv-append mla-append attention mla router rank-experts experts glu add gather-rows sample copy submit wait';
    expect([...OPS.keys()]).toEqual(named.split(' '));
    expect(() => opNamed('linaer')).toThrow('"linaer" was asked for');
  });
});

/** x as bf16 has it, rounded to nearest even, by arithmetic instead of bits; x is neither subnormal nor huge. */
function bf16(x: number): number {
  const step = 2 ** (Math.floor(Math.log2(Math.abs(x))) - 7);
  const low = Math.floor(x / step);
  const rest = x / step - low;
  return (rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low) * step;
}

describe('on tiles', () => {
  it('linear: x and W in bf16 from so many rows on, never below', async () => {
    const w = weight('f32', [5, 8], 2);
    for (const rows of [2, 3]) {
      const x = floats(rows, 8, 1);
      const round = rows >= 3 ? bf16 : (v: number) => v;
      const expected = Array.from({ length: rows }, (_, t) =>
        [0, 1, 2, 3, 4].map((n) => dot(row(x, 8, t).map(round), row(numbers(w), 8, n).map(round))),
      );
      const y = await run({ op: 'linear', inputs: [x, w, null], placement: { activation: 'f32', tiles: 3 } });
      expectClose(y, expected.flat());
    }
  });

  it('experts: the expert that enough rows visit has x, h and its weights in bf16, the others not', async () => {
    const x = floats(3, 4, 1);
    const ids = integers(3, 2, [1, 0, 1, 2, 1, 0]);
    const shares = floats(3, 2, 2);
    const weights = [weight('f32', [3, 5, 4], 3), weight('f32', [3, 5, 4], 4), weight('f32', [3, 4, 5], 5)];
    const [gate, up, down] = weights.map(numbers);
    const silu = (z: number) => z / (1 + Math.exp(-z));
    const expected = [0, 1, 2].flatMap((t) => {
      const y = [0, 0, 0, 0];
      for (let j = 0; j < 2; j++) {
        const e = ids.data[t * 2 + j];
        const round = e === 1 ? bf16 : (v: number) => v;
        const of = (w: { data: Float32Array }, columns: number, r: number) => row(w, columns, r).map(round);
        const input = row(x, 4, t).map(round);
        const h = Array.from({ length: 5 }, (_, f) =>
          round(Math.fround(silu(dot(input, of(gate, 4, e * 5 + f))) * dot(input, of(up, 4, e * 5 + f)))),
        );
        for (let n = 0; n < 4; n++) y[n] += shares.data[t * 2 + j] * dot(h, of(down, 5, e * 4 + n));
      }
      return y;
    });
    const inputs = [x, ids, shares, ...weights];
    const placement = { activation: 'f32', tiles: 3 } as const;
    expectClose(await run({ op: 'experts', inputs, attributes: { activation: 'silu' }, placement }), expected);
  });
});

describe('references', () => {
  it('linear: x·Wᵀ + bias', async () => {
    const x = floats(3, 8, 1);
    const [w, bias] = [weight('f32', [5, 8], 2), weight('f32', [5], 3)];
    const expected = [0, 1, 2].flatMap((t) =>
      [0, 1, 2, 3, 4].map((n) => dot(row(x, 8, t), row(numbers(w), 8, n)) + numbers(bias).data[n]),
    );
    expectClose(await run({ op: 'linear', inputs: [x, w, bias] }), expected);
  });

  it('rms-norm: every group has a mean square of one, then the weight', async () => {
    const ones: GivenWeight = { format: 'f32', shape: [4], bytes: new Uint8Array(Float32Array.of(1, 1, 1, 2).buffer) };
    const y = await run({ op: 'rms-norm', inputs: [floats(2, 8, 1), ones], attributes: { epsilon: 0, group: 4 } });
    for (let g = 0; g < 4; g++) {
      const [a, b, c, d] = row({ data: y }, 4, g);
      expect(a * a + b * b + c * c + (d / 2) ** 2).toBeCloseTo(4, 5);
    }
  });

  it('rope: rotates the pairs it names and keeps their length', async () => {
    const x: GivenValue = { rows: 1, columns: 6, data: Float32Array.of(9, 1, 0, 0, 2, 9) };
    const attributes = { headSize: 6, offset: 1, width: 4, frequencies: [Math.PI / 2, Math.PI], magnitude: 2 };
    const sequences = [{ rows: 1, firstPosition: 1 }];
    const pairs = await run({ op: 'rope', inputs: [x], attributes: { ...attributes, style: 'pairs' }, sequences });
    expectClose(pairs, [9, 0, 2, 0, -4, 9]);
    const halves = await run({ op: 'rope', inputs: [x], attributes: { ...attributes, style: 'halves' }, sequences });
    expectClose(halves, [9, 0, 0, 2, -4, 9]);
  });

  it('attention: softmax over what is visible, heads share their kv head', async () => {
    const [q, k, v] = [floats(2, 4 * 4, 1), floats(5, 2 * 4, 2), floats(5, 2 * 3, 3)];
    const attributes = { heads: 4, kvHeads: 2, headSize: 4, valueSize: 3, scale: 0.5 };
    const test: OpCase = {
      op: 'attention',
      inputs: [q],
      attributes,
      sequences: [{ rows: 2, firstPosition: 3 }],
      context: { op: 'kv-append', inputs: [k, v], heads: 2 },
    };
    const expected = [0, 1].flatMap((t) =>
      [0, 1, 2, 3].flatMap((head) => {
        const kv = head >> 1;
        const query = row(q, 16, t).slice(head * 4, head * 4 + 4);
        const seen = Array.from({ length: 4 + t }, (_, p) => p);
        const shares = softmax(seen.map((p) => 0.5 * dot(query, row(k, 8, p).slice(kv * 4, kv * 4 + 4))));
        return [0, 1, 2].map((i) => seen.reduce((sum, p) => sum + shares[p] * row(v, 6, p)[kv * 3 + i], 0));
      }),
    );
    expectClose(await run(test), expected);
  });

  it('mla: the absorbed form gives the same, from kv_b whole or split', async () => {
    const [heads, nope, rope, latent, value] = [2, 4, 2, 6, 3];
    const [q, c, r] = [floats(1, heads * (nope + rope), 1), floats(4, latent, 2), floats(4, rope, 3)];
    const kvB = weight('f32', [heads * (nope + value), latent], 4);
    const matrix = numbers(kvB);
    const up = (head: number, i: number) => row(matrix, latent, head * (nope + value) + i);
    const expected = [0, 1].flatMap((head) => {
      const query = row(q, heads * (nope + rope), 0).slice(head * (nope + rope), (head + 1) * (nope + rope));
      const absorbed = Array.from({ length: latent }, (_, l) =>
        query.slice(0, nope).reduce((sum, x, i) => sum + x * up(head, i)[l], 0),
      );
      const shares = softmax(
        [0, 1, 2, 3].map((p) => 0.3 * (dot(absorbed, row(c, latent, p)) + dot(query.slice(nope), row(r, rope, p)))),
      );
      const mixed = Array.from({ length: latent }, (_, l) =>
        shares.reduce((sum, share, p) => sum + share * row(c, latent, p)[l], 0),
      );
      return Array.from({ length: value }, (_, i) => dot(mixed, up(head, nope + i)));
    });
    const base: Omit<OpCase, 'inputs'> = {
      op: 'mla',
      attributes: { heads, nope, rope, latent, value, scale: 0.3 },
      sequences: [{ rows: 1, firstPosition: 3 }],
      context: { op: 'mla-append', inputs: [c, r] },
    };
    expectClose(await run({ ...base, inputs: [q, kvB, null, null] }), expected);
    const pack = (shape: number[], data: number[]): GivenWeight => ({
      format: 'f32',
      shape,
      bytes: new Uint8Array(Float32Array.from(data).buffer),
    });
    const each = (count: number) => Array.from({ length: count }, (_, i) => i);
    const kB = each(heads).flatMap((h) => each(latent).flatMap((l) => each(nope).map((n) => up(h, n)[l])));
    const vB = each(heads).flatMap((h) => each(value).flatMap((i) => up(h, nope + i)));
    const split = [q, null, pack([heads, latent, nope], kB), pack([heads, value, latent], vB)];
    expectClose(await run({ ...base, inputs: split }), expected);
  });

  it('experts: the sum over the chosen of their gated units', async () => {
    const x = floats(2, 4, 1);
    const ids = integers(2, 2, [1, 0, -1, 2]);
    const shares = floats(2, 2, 2);
    const weights = [weight('f32', [3, 5, 4], 3), weight('f32', [3, 5, 4], 4), weight('f32', [3, 4, 5], 5)];
    const [gate, up, down] = weights.map(numbers);
    const silu = (z: number) => z / (1 + Math.exp(-z));
    const expected = [0, 1].flatMap((t) => {
      const y = [0, 0, 0, 0];
      for (let j = 0; j < 2; j++) {
        const e = ids.data[t * 2 + j];
        if (e < 0) continue;
        const h = Array.from(
          { length: 5 },
          (_, f) => silu(dot(row(x, 4, t), row(gate, 4, e * 5 + f))) * dot(row(x, 4, t), row(up, 4, e * 5 + f)),
        );
        for (let n = 0; n < 4; n++) y[n] += shares.data[t * 2 + j] * dot(h, row(down, 5, e * 4 + n));
      }
      return y;
    });
    const inputs = [x, ids, shares, ...weights];
    expectClose(await run({ op: 'experts', inputs, attributes: { activation: 'silu' } }), expected);
  });

  it('embed, glu, add, gather-rows', async () => {
    const table = weight('f32', [4, 3], 1);
    const rows = [2, 0, 2].flatMap((token) => row(numbers(table), 3, token));
    expectClose(await run({ op: 'embed', inputs: [table], tokens: [2, 0, 2] }), rows);
    const [a, b] = [floats(2, 3, 1), floats(2, 3, 2)];
    const both = [...a.data].map((x, i) => [x, b.data[i]]);
    expectClose(
      await run({ op: 'add', inputs: [a, b] }),
      both.map(([x, y]) => x + y),
    );
    expectClose(
      await run({ op: 'glu', inputs: [a, b], attributes: { activation: 'silu' } }),
      both.map(([x, y]) => (x / (1 + Math.exp(-x))) * y),
    );
    const outputs = [
      { row: 0, sampling: null },
      { row: 2, sampling: null },
    ];
    const x = floats(3, 2, 3);
    expectClose(await run({ op: 'gather-rows', inputs: [x], outputs }), [...row(x, 2, 0), ...row(x, 2, 2)]);
  });
});

describe('magnitudes', () => {
  it('are at least |y|, and enough for another order of f32 sums', async () => {
    const test: OpCase = { op: 'linear', inputs: [floats(4, 512, 1), weight('f32', [32, 512], 2), null] };
    const [{ data, magnitude }] = await expectedOutputs(test);
    const [x, w] = [test.inputs[0] as GivenValue, numbers(test.inputs[1] as GivenWeight)];
    const { c, epsilonAccumulate } = opNamed('linear').bound;
    data.forEach((y, at) => {
      let sum = 0;
      const [t, n] = [Math.floor(at / 32), at % 32];
      for (let i = 511; i >= 0; i--) sum = Math.fround(sum + Math.fround(x.data[t * 512 + i] * w.data[n * 512 + i]));
      expect(magnitude![at]).toBeGreaterThanOrEqual(Math.abs(y) * (1 - 1e-6));
      expect(Math.abs(sum - y)).toBeLessThanOrEqual(c * epsilonAccumulate * magnitude![at]);
    });
  });
});
