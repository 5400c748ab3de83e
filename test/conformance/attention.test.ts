/** attention over the paged cache: shapes, page and split boundaries, mixed batches; and the exactness rule. */
import { describe, expect, it } from 'vitest';
import type { KvType } from '../../src/program/program.ts';
import { expectSameBits, type Piece, positionsOf } from './context.ts';
import { floats, judgeOp, nativeIsas, type OpCase, runOp, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly valueSize: number;
}

function attentionCase(shape: Shape, sequences: readonly Piece[], type: KvType, pad?: [number, number]): OpCase {
  const { heads, kvHeads, headSize, valueSize } = shape;
  const rows = sequences.reduce((sum, piece) => sum + piece.rows, 0);
  const positions = positionsOf(sequences);
  return {
    op: 'attention',
    inputs: [{ ...floats(rows, heads * headSize, 1), pad }],
    attributes: { ...shape, scale: headSize ** -0.5 },
    sequences,
    context: {
      op: 'kv-append',
      inputs: [floats(positions, kvHeads * headSize, 2), floats(positions, kvHeads * valueSize, 3)],
      heads: kvHeads,
      type,
    },
  };
}

const SMALL: Shape = { heads: 4, kvHeads: 2, headSize: 16, valueSize: 16 };

describe.skipIf(reason).each(isas)(`attention, %s ${reason ?? ''}`, (isa) => {
  it.each([
    { heads: 1, kvHeads: 1, headSize: 1, valueSize: 1 },
    { heads: 3, kvHeads: 3, headSize: 7, valueSize: 5 },
    { heads: 6, kvHeads: 2, headSize: 24, valueSize: 40 },
    { heads: 8, kvHeads: 1, headSize: 128, valueSize: 128 },
    { heads: 40, kvHeads: 1, headSize: 17, valueSize: 33 }, // more heads than a tile has rows
    { heads: 5, kvHeads: 5, headSize: 64, valueSize: 80 },
  ])('$heads heads of $headSize over $kvHeads of $valueSize', async (shape) => {
    const sequences = [
      { rows: 3, firstPosition: 66 },
      { rows: 1, firstPosition: 0 },
    ];
    for (const type of ['f32', 'bf16'] as const) await judgeOp(attentionCase(shape, sequences, type, [3, 2]), isa);
  });

  it('meets page boundaries with one row and with many', async () => {
    for (const context of [63, 64, 65, 127, 128, 129]) {
      await judgeOp(attentionCase(SMALL, [{ rows: 1, firstPosition: context - 1 }], 'bf16'), isa);
      await judgeOp(attentionCase(SMALL, [{ rows: context, firstPosition: 0 }], 'f32'), isa, { threads: 2 });
    }
  });

  it('takes 1 to 40 rows', async () => {
    for (let rows = 1; rows <= 40; rows++)
      await judgeOp(attentionCase(SMALL, [{ rows, firstPosition: 50 }], 'f32'), isa, { threads: 1 + (rows % 3) });
  });

  it('adds up split contexts', async () => {
    const sequences = [511, 512, 513, 1024, 1300].map((position) => ({ rows: 1, firstPosition: position }));
    for (const threads of [1, 3])
      await judgeOp(attentionCase(SMALL, [...sequences, { rows: 6, firstPosition: 509 }], 'bf16'), isa, { threads });
  });

  it.each([1, 2, 63, 64, 65, 128, 600])('sees the last %i positions, with sinks and without', async (window) => {
    const sequences = [
      { rows: 1, firstPosition: 0 },
      { rows: 40, firstPosition: 100 },
      { rows: 3, firstPosition: 510 },
      { rows: 1, firstPosition: 1300 },
      { rows: 70, firstPosition: 0 },
    ];
    for (const type of ['f32', 'bf16'] as const) {
      const test = attentionCase(SMALL, sequences, type);
      const windowed = { ...test, attributes: { ...test.attributes, window } };
      await judgeOp(windowed, isa, { threads: 3 });
      await judgeOp({ ...windowed, inputs: [...test.inputs, weight('bf16', [4], 9, 2)] }, isa, { threads: 1 });
    }
  });

  it('takes sinks far above and far below the scores', async () => {
    const test = attentionCase(SMALL, [{ rows: 9, firstPosition: 60 }], 'f32');
    const sinks = weight('f32', [4], 1);
    new Float32Array(sinks.bytes.buffer).set([200, -200, 0, 5]);
    await judgeOp({ ...test, inputs: [...test.inputs, sinks] }, isa);
    await judgeOp({ ...test, inputs: [{ ...floats(9, 64, 1, 300) }, sinks] }, isa);
  });

  it('never looks at positions before the window', async () => {
    const test = attentionCase(SMALL, [{ rows: 9, firstPosition: 60 }], 'f32');
    const windowed = { ...test, attributes: { ...test.attributes, window: 5 } };
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const [before] = await runOp(nativeBackend(), windowed, { isa });
    const [keys, values] = test.context!.inputs;
    keys.data.fill(Number.NaN, 0, 58 * 32);
    values.data.fill(Infinity, 0, 58 * 32);
    const [after] = await runOp(nativeBackend(), windowed, { isa });
    // Row 0 is at position 60 and sees 56 … 60; from row 2 on, 58 and later.
    expect(after.data.subarray(2 * 64)).toEqual(before.data.subarray(2 * 64));
    expect(after.data.subarray(0, 2 * 64).every((value) => Number.isNaN(value))).toBe(true);
  });

  it('keeps scores apart that would overflow e^x', async () => {
    const test = attentionCase(SMALL, [{ rows: 8, firstPosition: 70 }], 'f32');
    const queries = { ...floats(8, 64, 1, 300) };
    await judgeOp({ ...test, inputs: [queries] }, isa);
  });

  it('never looks at later positions', async () => {
    const test = attentionCase(SMALL, [{ rows: 9, firstPosition: 60 }], 'f32');
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const [before] = await runOp(nativeBackend(), test, { isa });
    const [keys, values] = test.context!.inputs;
    keys.data.fill(Number.NaN, 66 * 32);
    values.data.fill(Infinity, 66 * 32);
    const [after] = await runOp(nativeBackend(), test, { isa });
    expect(after.data.subarray(0, 6 * 64)).toEqual(before.data.subarray(0, 6 * 64));
    expect(after.data.subarray(6 * 64).every((value) => Number.isNaN(value))).toBe(true);
  });

  it('gives the same bits to the heads of one row on any number of threads', async () => {
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const shape = { heads: 23, kvHeads: 1, headSize: 24, valueSize: 40 };
    for (const firstPosition of [3, 200, 700]) {
      const test = attentionCase(shape, [{ rows: 1, firstPosition }], 'bf16');
      const [alone] = await runOp(nativeBackend(), test, { isa, threads: 1 });
      for (const threads of [2, 3, 7])
        expect(await runOp(nativeBackend(), test, { isa, threads }), `${threads} threads`).toEqual([alone]);
    }
  });

  it.each([
    ['f32', 0],
    ['bf16', 0],
    ['bf16', 100],
  ] as const)('gives the same bits however batches are cut (%s, window %i)', async (type, window) => {
    const sequences = [
      { rows: 1, firstPosition: 600 },
      { rows: 70, firstPosition: 30 },
      { rows: 5, firstPosition: 510 },
      { rows: 1, firstPosition: 0 },
    ];
    const test = attentionCase(SMALL, sequences, type);
    await expectSameBits({ ...test, attributes: { ...test.attributes, window } }, isa, [1, 16]);
  });
});
