/** mla: whole and split weights of several formats, odd shapes, boundaries; and the exactness rule. */
import { describe, it } from 'vitest';
import type { FormatName } from '../../src/formats/dtype.ts';
import type { KvType } from '../../src/program/program.ts';
import { expectSameBits, type Piece, positionsOf } from './context.ts';
import { floats, judgeOp, nativeIsas, type OpCase, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

interface Shape {
  readonly heads: number;
  readonly nope: number;
  readonly rope: number;
  readonly latent: number;
  readonly value: number;
}

interface Options {
  readonly format?: FormatName;
  /** kB and vB instead of kvB. */
  readonly split?: boolean;
  readonly type?: KvType;
}

function mlaCase(shape: Shape, sequences: readonly Piece[], options: Options = {}): OpCase {
  const { heads, nope, rope, latent, value } = shape;
  const { format = 'f32', split = false, type = 'f32' } = options;
  const rows = sequences.reduce((sum, piece) => sum + piece.rows, 0);
  const positions = positionsOf(sequences);
  const kvB = split ? null : weight(format, [heads * (nope + value), latent], 2, 0.2);
  const kB = split ? weight(format, [heads, latent, nope], 3, 0.2) : null;
  const vB = split ? weight(format, [heads, value, latent], 4, 0.2) : null;
  return {
    op: 'mla',
    inputs: [{ ...floats(rows, heads * (nope + rope), 1), pad: [1, 2] }, kvB, kB, vB],
    attributes: { ...shape, scale: (nope + rope) ** -0.5 },
    sequences,
    context: { op: 'mla-append', inputs: [floats(positions, latent, 5), floats(positions, rope, 6)], type },
  };
}

const SMALL: Shape = { heads: 3, nope: 32, rope: 16, latent: 64, value: 32 };

describe.skipIf(reason).each(isas)(`mla, %s ${reason ?? ''}`, (isa) => {
  describe.each([false, true])('split weights: %s', (split) => {
    it.each([
      { heads: 1, nope: 1, rope: 2, latent: 1, value: 1 },
      { heads: 3, nope: 10, rope: 6, latent: 37, value: 11 },
      { heads: 40, nope: 16, rope: 8, latent: 32, value: 16 }, // more heads than a tile has rows
      { heads: 2, nope: 128, rope: 64, latent: 512, value: 128 },
    ])('$heads heads, $nope + $rope, latent $latent, value $value', async (shape) => {
      const sequences = [
        { rows: 2, firstPosition: 65 },
        { rows: 1, firstPosition: 3 },
        { rows: 5, firstPosition: 0 },
      ];
      for (const type of ['f32', 'bf16'] as const) await judgeOp(mlaCase(shape, sequences, { split, type }), isa);
    });

    it.each(['f16', 'bf16', 'q8_0', 'q4_0', 'q5_0'] as const)('decodes %s', async (format) => {
      await judgeOp(mlaCase(SMALL, [{ rows: 3, firstPosition: 7 }], { split, format }), isa, { threads: 2 });
    });

    it('decodes formats with wide blocks and with scales of their own', async () => {
      const wide = { heads: 2, nope: 256, rope: 16, latent: 256, value: 32 };
      for (const format of ['q4_k', 'q5_k', 'q6_k', 'f8_e4m3'] as const)
        await judgeOp(mlaCase(wide, [{ rows: 3, firstPosition: 7 }], { split, format }), isa);
    });

    it('gives the same bits where few heads are cut for many threads', async () => {
      const shape = { heads: 2, nope: 256, rope: 16, latent: 512, value: 96 };
      for (const format of ['q8_0', 'q4_k', 'f8_e4m3'] as const)
        await expectSameBits(mlaCase(shape, [{ rows: 9, firstPosition: 70 }], { split, format }), isa, [1, 3]);
    });

    it('gives the same bits however batches are cut', async () => {
      const sequences = [
        { rows: 1, firstPosition: 600 },
        { rows: 40, firstPosition: 30 },
        { rows: 3, firstPosition: 510 },
      ];
      await expectSameBits(mlaCase(SMALL, sequences, { split, type: 'bf16' }), isa, [1, 16]);
    });
  });

  it('meets page boundaries with one row and with many', async () => {
    for (const context of [63, 64, 65, 127, 128, 129]) {
      await judgeOp(mlaCase(SMALL, [{ rows: 1, firstPosition: context - 1 }], { type: 'bf16' }), isa);
      await judgeOp(mlaCase(SMALL, [{ rows: context, firstPosition: 0 }]), isa, { threads: 3 });
    }
  });

  it('takes 1 to 40 rows', async () => {
    for (let rows = 1; rows <= 40; rows += rows < 9 ? 1 : 5)
      await judgeOp(mlaCase(SMALL, [{ rows, firstPosition: 50 }]), isa, { threads: 1 + (rows % 3) });
  });

  it('shares decoded weights over more rows than a chunk has', async () => {
    await judgeOp(mlaCase({ ...SMALL, latent: 32, nope: 16 }, [{ rows: 300, firstPosition: 0 }]), isa, { threads: 2 });
  });
});
