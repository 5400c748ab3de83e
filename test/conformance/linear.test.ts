/** linear: every weight format over row counts, columns, activations, special values; and the exactness rule. */
import { describe, expect, it } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { FORMAT_NAMES, type FormatName } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { activationOf } from '../../src/ops/activation.ts';
import {
  floats,
  type GivenValue,
  type GivenWeight,
  judgeOp,
  nativeIsas,
  type OpCase,
  runOp,
  weight,
} from './harness.ts';

const { isas, reason } = await nativeIsas();

/** Rows of odd blocks and odd floats lie at every alignment their format allows. */
function linearCase(format: FormatName, rows: number, outputs: number, columns: number): OpCase {
  return {
    op: 'linear',
    inputs: [floats(rows, columns, rows + 1), weight(format, [outputs, columns], columns + 2), null],
    placement: { activation: activationOf(format) },
  };
}

async function bits(test: OpCase, isa: Isa, threads: number): Promise<Int32Array> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const [{ data }] = await runOp(nativeBackend(), test, { isa, threads });
  return new Int32Array(data.buffer, data.byteOffset, data.length);
}

function rowsOf(test: OpCase, start: number, end: number): OpCase {
  const [x, ...rest] = test.inputs as [GivenValue, ...GivenWeight[]];
  const data = x.data.slice(start * x.columns, end * x.columns);
  return { ...test, inputs: [{ ...x, rows: end - start, data }, ...rest] };
}

describe.skipIf(reason).each(isas)(`linear, %s ${reason ?? ''}`, (isa) => {
  describe.each(FORMAT_NAMES)('%s', (format) => {
    const { blockSize } = quantFormat(format);

    it('takes 1 to 40 rows, each with the bits it has among 40', async () => {
      const columns = blockSize === 1 ? 75 : blockSize === 32 ? 96 : 512;
      const test = linearCase(format, 40, 37, columns);
      await judgeOp(test, isa);
      const whole = await bits(test, isa, 2);
      for (let rows = 1; rows <= 40; rows++) {
        const start = (rows * 7) % (41 - rows);
        const part = await bits(rowsOf(test, start, start + rows), isa, 1 + (rows % 3));
        const first = part.findIndex((value, i) => value !== whole[start * 37 + i]);
        expect(first, `${rows} rows from ${start}: first element that differs`).toBe(-1);
      }
    });

    it('takes any number of outputs, each with the bits it has alone', async () => {
      const columns = blockSize === 1 ? 1407 : blockSize === 32 ? 1408 : 2816;
      for (const outputs of [1, 15, 16, 17, 31, 33, 65]) {
        const test = linearCase(format, 9, outputs, columns);
        await judgeOp(test, isa);
        const whole = await bits(test, isa, 1);
        for (const row of [0, 8]) {
          const alone = await bits(rowsOf(test, row, row + 1), isa, 1);
          const first = alone.findIndex((value, i) => value !== whole[row * outputs + i]);
          expect(first, `row ${row} of ${outputs} outputs: first element that differs`).toBe(-1);
        }
      }
    });

    // Two to eight tokens go sixteen rows at a time, what is left of rows by panels or tiles.
    it('has the bits of one token for two to eight, whatever is left of sixteen outputs', async () => {
      for (const [outputs, blocks] of [
        [16, 1],
        [24, 3],
        [41, 2],
      ]) {
        const test = linearCase(format, 8, outputs, blocks * blockSize);
        const whole = await bits(test, isa, 1);
        for (let rows = 1; rows < 8; rows++)
          expect(await bits(rowsOf(test, 8 - rows, 8), isa, 1), `${rows} rows`).toEqual(
            whole.subarray((8 - rows) * outputs),
          );
      }
    });

    it('takes any number of columns', async () => {
      const [from, to] = blockSize === 1 ? [1, 70] : blockSize === 32 ? [1, 19] : [1, 5];
      for (let blocks = from; blocks <= to; blocks++) await judgeOp(linearCase(format, 5, 6, blocks * blockSize), isa);
    });

    it('takes long rows and many of them', async () => {
      const columns = blockSize === 1 ? 1407 : blockSize === 32 ? 1408 : 2048;
      await judgeOp(linearCase(format, 3, 263, columns), isa, { threads: 2 });
    });

    it('meets any activation format', async () => {
      const columns = blockSize === 1 ? 256 : blockSize;
      const rest = linearCase(format, 6, 5, columns);
      for (const activation of ['f32', 'bf16', ...(columns === 256 ? (['q8_32', 'q8_256'] as const) : [])] as const)
        await judgeOp({ ...rest, placement: { activation } }, isa);
    });

    it('gives the same bits for any batch and any number of threads', async () => {
      const test = linearCase(format, 11, 77, blockSize === 1 ? 301 : blockSize * 3);
      const whole = await bits(test, isa, 1);
      for (const threads of [2, 3]) expect(await bits(test, isa, threads)).toEqual(whole);
      for (const [start, end] of [
        [0, 1],
        [10, 11],
        [1, 3],
        [3, 6],
        [5, 11],
      ])
        expect(await bits(rowsOf(test, start, end), isa, 2)).toEqual(whole.subarray(start * 77, end * 77));
    });

    it('passes on NaN and infinity of the activations', async () => {
      const test = linearCase(format, 4, 5, blockSize === 1 ? 40 : blockSize * 2);
      const x = test.inputs[0] as GivenValue;
      x.data[x.columns] = Infinity;
      x.data[3 * x.columns - 1] = Number.NaN;
      await judgeOp(test, isa);
    });
  });

  // Sums of the smaller of these fit 16 bits, and are multiplied so; those of the larger do not.
  it.each(['q2_k', 'q3_k', 'q4_k', 'q5_k', 'q6_k'] as const)('%s: activations small and large', async (format) => {
    const test = linearCase(format, 14, 40, 768);
    const { data } = test.inputs[0] as GivenValue;
    // Row 0 of three: every code is 127 or -127; row 1: in its second block only. The last six rows are as small as they come.
    const sign = [1, -1, 1, (i: number) => (i % 5 < 2 ? -1 : 1)] as const;
    for (let t = 0; t < 8; t++) {
      const way = sign[t % 4] as (typeof sign)[number];
      const [from, to] = t % 3 === 0 ? [0, 768] : t % 3 === 1 ? [256, 512] : [0, 0];
      for (let i = from; i < to; i++) data[768 * t + i] = typeof way === 'number' ? way : way(i);
    }
    await judgeOp(test, isa);
    const whole = await bits(test, isa, 1);
    for (let t = 0; t < 14; t++)
      expect(await bits(rowsOf(test, t, t + 1), isa, 1), `row ${t}`).toEqual(whole.subarray(t * 40, (t + 1) * 40));
  });

  // The loader refuses weights that are not finite; but the product of two scales may overflow where the sum does not.
  it.each([
    ['q8_0', [0]],
    ['q4_0', [0]],
    ['q4_1', [0, 2]],
    ['q5_0', [0]],
    ['q5_1', [0, 2]],
    ['iq4_nl', [0]],
    ['q2_k', [80, 82]],
    ['q3_k', [108]],
    ['q4_k', [0, 2]],
    ['q5_k', [0, 2]],
    ['q6_k', [208]],
    ['iq4_xs', [0]],
    ['iq2_xxs', [0]],
    ['iq2_xs', [0]],
    ['iq2_s', [0]],
    ['iq3_xxs', [0]],
    ['iq3_s', [0]],
    ['iq1_s', [0]],
  ] as const)('%s: the largest scales with the largest activations', async (format, halves) => {
    const { blockSize, blockBytes } = quantFormat(format);
    const test = linearCase(format, 5, 40, 2 * blockSize);
    const { bytes } = test.inputs[1] as GivenWeight;
    for (let block = 0; block < bytes.length; block += blockBytes)
      for (const at of halves) bytes.set([0xff, 0x7b], block + at); // 65504
    const { data } = test.inputs[0] as GivenValue;
    for (let t = 0; t < 5; t++) data[2 * blockSize * t + 7 * t] = 3e38;
    await judgeOp(test, isa);
  });

  // Integer sums at their largest: every code, scale and minimum at an end of its range, activations all of one sign.
  it.each([
    ['q2_k', [80, 82]],
    ['q3_k', [108]],
    ['q4_k', [0, 2]],
    ['q5_k', [0, 2]],
    ['q6_k', [208]],
    ['iq4_xs', [0]],
    ['iq2_xxs', [0]],
    ['iq2_xs', [0]],
    ['iq2_s', [0]],
    ['iq3_xxs', [0]],
    ['iq3_s', [0]],
    ['iq1_s', [0]],
    ['iq1_m', []],
    ['q8_0', [0]],
    ['q4_0', [0]],
    ['q4_1', [0, 2]],
    ['q5_0', [0]],
    ['q5_1', [0, 2]],
    ['iq4_nl', [0]],
    ['mxfp4', []],
    ['mxfp4_g32', []],
    ['int4_g32', []],
  ] as const)('%s: the largest sums of codes', async (format, halves) => {
    const { blockBytes } = quantFormat(format);
    const test = linearCase(format, 9, 33, 512);
    const { bytes } = test.inputs[1] as GivenWeight;
    const patterns = [0xff, 0x00, 0x80, 0x7f, 0x0f, 0xf0];
    for (let block = 0; block < bytes.length / blockBytes; block++) {
      const pattern = patterns[(block >> 1) % patterns.length];
      bytes.fill(pattern, block * blockBytes, (block + 1) * blockBytes);
      // q6_k: signed scales behind the codes, which are largest against 0x80.
      if (format === 'q6_k') bytes.fill(block & 4 ? 0x80 : 0x7f, block * blockBytes + 192, block * blockBytes + 208);
      for (const at of halves) bytes.set([0x00, 0x3c], block * blockBytes + at); // 1
      // iq1_m keeps the nibbles of its scale on top of four words.
      if (format === 'iq1_m')
        for (const [at, nibble] of [0, 0, 0xc0, 0x30].entries())
          bytes[block * blockBytes + 49 + 2 * at] = (pattern & 15) | nibble;
      if (format === 'mxfp4') bytes[block * blockBytes] = 127; // 1
    }
    const { data } = test.inputs[0] as GivenValue;
    data.forEach((_, i) => {
      data[i] = Math.floor(i / 512) % 2 ? -1 : 1;
    });
    await judgeOp(test, isa);
    const whole = await bits(test, isa, 1);
    for (const row of [0, 1]) {
      const alone = await bits(rowsOf(test, row, row + 1), isa, 1);
      expect(alone).toEqual(whole.subarray(row * 33, row * 33 + 33));
    }
  });

  it('mxfp4: exponents from the least to the largest', async () => {
    const test = linearCase('mxfp4', 5, 36, 256);
    const { bytes } = test.inputs[1] as GivenWeight;
    const exponents = [0, 1, 2, 3, 64, 127, 128, 200, 238];
    // One exponent a row, so that small ones are seen.
    for (let block = 0; block < bytes.length / 17; block++)
      bytes[block * 17] = exponents[(block >> 3) % exponents.length];
    await judgeOp(test, isa);
  });

  it('weights of zero give zero, whatever their codes are offset by', async () => {
    const codes = { q8_0: [0, 34, 0], q4_0: [0x88, 18, 0], q6_k: [0, 210, 2] } as const;
    for (const format of ['q8_0', 'q4_0', 'q6_k'] as const) {
      const [code, size, high] = codes[format];
      const test = linearCase(format, 3, 4, 512);
      const { bytes } = test.inputs[1] as GivenWeight;
      for (let block = 0; block < bytes.length; block += size) {
        if (format === 'q6_k') {
          bytes.fill(code, block, block + 128);
          bytes.fill(high * 0x55, block + 128, block + 192);
        } else bytes.fill(code, block + 2, block + size);
      }
      for (const row of await bits(test, isa, 1)) expect(Math.abs(row << 1)).toBe(0);
    }
  });

  it('adds a bias of any plain format, at any view of x', async () => {
    for (const format of ['f32', 'f16', 'bf16'] as const)
      for (const pad of [
        [1, 2],
        [3, 0],
      ] as const)
        await judgeOp(
          {
            op: 'linear',
            inputs: [{ ...floats(7, 96, 1), pad }, weight('q8_0', [37, 96], 2), weight(format, [37], 3)],
            placement: { activation: 'q8_32' },
          },
          isa,
          { threads: 2 },
        );
  });
});

// Integer sums of a block and one fma a block in order: both instruction sets do the same (cpu/kernels/dot_totals.inl.h, dot_q32.inl.h).
const both = (['avx2', 'avx512'] as const).filter((isa) => isas.includes(isa));
describe.skipIf(both.length < 2)('linear on rounded activations', () => {
  it.each(FORMAT_NAMES.filter((format) => quantFormat(format).blockSize > 1))(
    'has the same bits on avx2 and avx512: %s',
    async (format) => {
      for (const rows of [1, 2, 3, 4, 5, 6, 9]) {
        const test = linearCase(format, rows, 75, quantFormat(format).blockSize === 32 ? 1408 : 2048);
        expect(await bits(test, 'avx2', 2)).toEqual(await bits(test, 'avx512', 2));
      }
    },
  );
});
