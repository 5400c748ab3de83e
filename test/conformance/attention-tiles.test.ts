/**
 * attention and mla in fast mode: within the bound of bf16 operands and near the reference as a whole, at all row counts
 * and around the boundaries of pages, blocks and splits; the bits do not depend on threads or on other sequences.
 */
import { describe, expect, it } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { similarity } from '../../src/ops/bound.ts';
import type { KvType } from '../../src/program/program.ts';
import { type Piece, pieceOf, positionsOf } from './context.ts';
import { expectedOutputs, floats, judgeOutputs, nativeIsas, type OpCase, runOp, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

interface GroupedShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly valueSize: number;
}
interface LatentShape {
  readonly heads: number;
  readonly nope: number;
  readonly rope: number;
  readonly latent: number;
  readonly value: number;
}

const placement = { activation: 'f32', tiles: 1 } as const;
const rowsOf = (sequences: readonly Piece[]) => sequences.reduce((sum, piece) => sum + piece.rows, 0);

function grouped(shape: GroupedShape, sequences: readonly Piece[], type: KvType = 'bf16'): OpCase {
  const { heads, kvHeads, headSize, valueSize } = shape;
  const positions = positionsOf(sequences);
  return {
    op: 'attention',
    inputs: [{ ...floats(rowsOf(sequences), heads * headSize, 1), pad: [3, 2] }],
    attributes: { ...shape, scale: headSize ** -0.5 },
    placement,
    sequences,
    context: {
      op: 'kv-append',
      inputs: [floats(positions, kvHeads * headSize, 2), floats(positions, kvHeads * valueSize, 3)],
      heads: kvHeads,
      type,
    },
  };
}

function latent(shape: LatentShape, sequences: readonly Piece[], type: KvType = 'bf16', split = false): OpCase {
  const { heads, nope, rope, latent: width, value } = shape;
  const positions = positionsOf(sequences);
  const deviation = width ** -0.5;
  return {
    op: 'mla',
    inputs: [
      { ...floats(rowsOf(sequences), heads * (nope + rope), 1), pad: [1, 2] },
      split ? null : weight('f32', [heads * (nope + value), width], 2, deviation),
      split ? weight('f32', [heads, width, nope], 3, deviation) : null,
      split ? weight('f32', [heads, value, width], 4, deviation) : null,
    ],
    attributes: { ...shape, scale: (nope + rope) ** -0.5 },
    placement,
    sequences,
    context: { op: 'mla-append', inputs: [floats(positions, width, 5), floats(positions, rope, 6)], type },
  };
}

/** Within the op's bound; and as a whole far nearer than it: the bound adds up what rounding spreads in both directions. */
async function judge(test: OpCase, isa: Isa, threads = 1): Promise<void> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const actual = await runOp(nativeBackend(), test, { isa, threads });
  const expected = await expectedOutputs(test);
  judgeOutputs(test, actual, expected, isa);
  const { nmse } = similarity(actual[0].data as Float32Array, expected[0].data as Float32Array);
  const rounds = isa === 'avx512' || isa === 'amx';
  expect(nmse, `${isa}: ${test.op} ${JSON.stringify(test.sequences)}`).toBeLessThan(rounds ? 2e-4 : 1e-11);
}

async function bits(test: OpCase, isa: Isa, threads: number): Promise<Uint32Array> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const [{ data }] = await runOp(nativeBackend(), test, { isa, threads });
  return new Uint32Array(data.buffer, data.byteOffset, data.length);
}

/** The same bits on any number of threads, and for each sequence alone. */
async function expectOwnBits(test: OpCase, isa: Isa): Promise<void> {
  const whole = await bits(test, isa, 1);
  for (const threads of [2, 3, 7]) expect(await bits(test, isa, threads), `${threads} threads`).toEqual(whole);
  const sequences = test.sequences!;
  const columns = whole.length / rowsOf(sequences);
  let row = 0;
  for (let s = 0; s < sequences.length; s++) {
    const { rows } = sequences[s];
    const alone = await bits(pieceOf(test, s, 0, rows), isa, 2);
    expect(alone, `sequence ${s}`).toEqual(whole.subarray(row * columns, (row + rows) * columns));
    row += rows;
  }
}

const GROUPED: GroupedShape = { heads: 8, kvHeads: 2, headSize: 16, valueSize: 16 };
const LATENT: LatentShape = { heads: 3, nope: 16, rope: 8, latent: 48, value: 16 };
const MIXED: readonly Piece[] = [
  { rows: 1, firstPosition: 600 },
  { rows: 70, firstPosition: 30 },
  { rows: 5, firstPosition: 510 },
  { rows: 40, firstPosition: 1100 },
  { rows: 1, firstPosition: 0 },
  { rows: 33, firstPosition: 0 },
];

describe.skipIf(reason).each(isas)(`attention on tiles, %s ${reason ?? ''}`, (isa) => {
  it.each([
    { heads: 1, kvHeads: 1, headSize: 1, valueSize: 1 },
    { heads: 6, kvHeads: 2, headSize: 24, valueSize: 40 },
    { heads: 16, kvHeads: 1, headSize: 128, valueSize: 128 },
    { heads: 150, kvHeads: 1, headSize: 17, valueSize: 33 }, // more heads than a tile has rows
  ])('$heads heads of $headSize over $kvHeads of $valueSize', async (shape) => {
    for (const type of ['f32', 'bf16'] as const) {
      await judge(grouped(shape, [{ rows: 20, firstPosition: 66 }], type), isa);
      await judge(grouped(shape, [{ rows: 3, firstPosition: 126 }], type), isa, 2);
    }
  });

  it('takes 1 to 40 rows', async () => {
    for (let rows = 1; rows <= 40; rows++)
      await judge(grouped(GROUPED, [{ rows, firstPosition: 50 }], 'f32'), isa, 1 + (rows % 3));
  });

  it('meets the boundaries of pages, blocks and splits', async () => {
    for (const context of [63, 64, 65, 127, 128, 129, 511, 512, 513, 2000])
      await judge(grouped(GROUPED, [{ rows: 20, firstPosition: context - 20 }]), isa, 2);
  });

  it.each([1, 63, 64, 130, 600])('sees the last %i positions, with sinks and without', async (window) => {
    const test = grouped(GROUPED, MIXED);
    const windowed = { ...test, attributes: { ...test.attributes, window } };
    await judge(windowed, isa, 3);
    await judge({ ...windowed, inputs: [...test.inputs, weight('bf16', [8], 9, 2)] }, isa, 1);
    await expectOwnBits(windowed, isa);
  });

  it('keeps scores apart that would overflow 2^x', async () => {
    const test = grouped(GROUPED, [{ rows: 20, firstPosition: 70 }], 'f32');
    const steep = { ...test, inputs: [floats(20, 128, 1, 300)] };
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    judgeOutputs(steep, await runOp(nativeBackend(), steep, { isa }), await expectedOutputs(steep), isa);
  });

  it.each(['f32', 'bf16'] as const)('gives each sequence its own bits (%s)', async (type) => {
    await expectOwnBits(grouped(GROUPED, MIXED, type), isa);
  });
});

describe.skipIf(reason).each(isas)(`mla on tiles, %s ${reason ?? ''}`, (isa) => {
  describe.each([false, true])('split weights: %s', (split) => {
    it.each([
      { heads: 1, nope: 1, rope: 2, latent: 1, value: 1 },
      { heads: 3, nope: 10, rope: 6, latent: 37, value: 11 },
      { heads: 40, nope: 16, rope: 8, latent: 32, value: 16 },
      { heads: 150, nope: 4, rope: 4, latent: 8, value: 4 },
      { heads: 2, nope: 128, rope: 64, latent: 512, value: 128 },
    ])('$heads heads, $nope + $rope, latent $latent, value $value', async (shape) => {
      for (const type of ['f32', 'bf16'] as const) {
        await judge(latent(shape, [{ rows: 20, firstPosition: 0 }], type, split), isa); // expanded
        await judge(latent(shape, [{ rows: 10, firstPosition: 130 }], type, split), isa, 2); // absorbed
      }
    });

    it('meets several sequences, each in its own way', async () => {
      for (const type of ['f32', 'bf16'] as const) await judge(latent(LATENT, MIXED, type, split), isa, 2);
      await expectOwnBits(latent(LATENT, MIXED, 'bf16', split), isa);
    });
  });

  it('takes 1 to 40 rows', async () => {
    for (let rows = 1; rows <= 40; rows++) {
      await judge(latent(LATENT, [{ rows, firstPosition: 50 }]), isa, 1 + (rows % 3));
      await judge(latent(LATENT, [{ rows, firstPosition: 0 }]), isa, 1 + (rows % 3));
    }
  });

  it('meets the boundaries of pages, blocks and splits', async () => {
    for (const context of [63, 64, 65, 127, 128, 129, 511, 512, 513, 2000]) {
      await judge(latent(LATENT, [{ rows: 6, firstPosition: context - 6 }]), isa, 2);
      await judge(latent(LATENT, [{ rows: 60, firstPosition: context - 60 }]), isa, 3);
    }
    for (const rows of [127, 128, 129, 300]) await judge(latent(LATENT, [{ rows, firstPosition: 0 }]), isa, 2);
  });

  it('takes heads in groups where all at once would be too large', async () => {
    const shape = { heads: 24, nope: 16, rope: 2048, latent: 32, value: 16 }; // keys of a segment: over 4 MB a head
    const test = latent(shape, [
      { rows: 40, firstPosition: 0 },
      { rows: 17, firstPosition: 0 },
    ]);
    await judge(test, isa, 2);
    await expectOwnBits(test, isa);
  });

  it('decodes quantized weights', async () => {
    const shape = { heads: 2, nope: 256, rope: 16, latent: 256, value: 32 };
    for (const format of ['q8_0', 'q4_k', 'f8_e4m3', 'bf16'] as const) {
      for (const split of [false, true]) {
        const test = latent(shape, [{ rows: 20, firstPosition: 7 }], 'bf16', split);
        const inputs = test.inputs.map((given, i) =>
          given && 'format' in given ? weight(format, given.shape, i, 0.06) : given,
        );
        await judge({ ...test, inputs }, isa);
      }
    }
  });

  it('leaves sequences of fewer rows exact', async () => {
    const test = latent(LATENT, [{ rows: 9, firstPosition: 200 }]);
    const exact = await bits({ ...test, placement: { activation: 'f32' } }, isa, 1);
    expect(await bits({ ...test, placement: { activation: 'f32', tiles: 10 } }, isa, 1)).toEqual(exact);
    const fast = await bits({ ...test, placement: { activation: 'f32', tiles: 9 } }, isa, 1);
    expect(fast).not.toEqual(exact);
  });
});
