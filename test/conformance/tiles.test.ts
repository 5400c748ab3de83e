/**
 * linear and experts on tiles (fast mode), on every tile unit of this machine: the AMX kernels in emulation wherever there is
 * AVX512-BF16, so their shapes and addresses are tested without the hardware.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { loadNative } from '../../src/backend/native/load.ts';
import { FORMAT_NAMES, type FormatName } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { activationOf, roundForTiles } from '../../src/ops/activation.ts';
import {
  expectedOutputs,
  floats,
  type GivenValue,
  type GivenWeight,
  integers,
  judgeOp,
  nativeIsas,
  type OpCase,
  random,
  runOp,
  weight,
} from './harness.ts';

const { isas, reason: noNative } = await nativeIsas();
const features = noNative ? [] : loadNative().machine().features;
const hasBf16 = isas.includes('avx512') && features.includes('avx512bf16') && features.includes('avx512vbmi');
const reason = noNative ?? (hasBf16 ? undefined : 'this machine has no AVX512-BF16');
/** Names of TANDEM_TILES, and the instruction set that goes with each. */
const units: [unit: string, isa: Isa][] = [
  ['emulated', 'avx512'],
  ['avx512-bf16', 'avx512'],
];
if (isas.includes('amx')) units.push(['amx', 'amx']);

function columnsOf(format: FormatName, blocks: number): number {
  const { blockSize } = quantFormat(format);
  return blockSize === 1 ? 32 * blocks + 11 : blockSize * blocks;
}

function linearCase(format: FormatName, rows: number, outputs: number, columns: number, tiles = 1): OpCase {
  return {
    op: 'linear',
    inputs: [floats(rows, columns, rows + 1), weight(format, [outputs, columns], columns + 2), null],
    placement: { activation: activationOf(format), tiles },
  };
}

interface Shape {
  readonly rows: number;
  readonly topk: number;
  readonly experts: number;
  readonly ffn: number;
  readonly hidden: number;
  readonly tiles?: number;
}

function expertsCase(
  { rows, topk, experts, ffn, hidden, tiles = 1 }: Shape,
  [gate, up, down]: readonly [FormatName, FormatName, FormatName],
  choose?: (row: number, j: number) => number,
): OpCase {
  const next = random(rows + topk);
  const pick = choose ?? (() => Math.floor(next() * (experts + 1)) - 1);
  return {
    op: 'experts',
    inputs: [
      floats(rows, hidden, 1),
      integers(
        rows,
        topk,
        Array.from({ length: rows * topk }, (_, i) => pick(Math.floor(i / topk), i % topk)),
      ),
      floats(rows, topk, 2),
      weight(gate, [experts, ffn, hidden], 3, 0.1),
      { ...weight(up, [experts, ffn, hidden], 4, 0.1), split: true },
      weight(down, [experts, hidden, ffn], 5, 0.1),
    ],
    attributes: { activation: 'silu' },
    placement: { activation: activationOf(gate), middle: activationOf(down), tiles },
  };
}

async function bits(test: OpCase, isa: Isa, threads: number): Promise<Int32Array> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const [{ data }] = await runOp(nativeBackend(), test, { isa, threads });
  return new Int32Array(data.buffer, data.byteOffset, data.length);
}

describe.skipIf(reason).each(units)(`on tiles: %s ${reason ?? ''}`, (unit, isa) => {
  const before = process.env.TANDEM_TILES;
  beforeAll(() => {
    process.env.TANDEM_TILES = unit;
  });
  afterAll(() => {
    if (before === undefined) delete process.env.TANDEM_TILES;
    else process.env.TANDEM_TILES = before;
  });

  it('is the unit that the machine names', () => {
    expect(loadNative().machine().tiles).toBe(unit === 'emulated' ? 'amx-emulated' : unit);
  });

  describe.each(FORMAT_NAMES)('linear, %s', (format) => {
    it('multiplies with the weights rounded to bf16, bit for bit', async () => {
      // x is the identity, so y is the panel: each element a single product with 1.
      const columns = columnsOf(format, quantFormat(format).blockSize === 256 ? 1 : 3);
      const test = linearCase(format, columns, 37, columns);
      const { data } = test.inputs[0] as GivenValue;
      data.fill(0);
      for (let i = 0; i < columns; i++) data[i * columns + i] = 1;
      const { nativeBackend } = await import('../../src/backend/native/backend.ts');
      const [actual] = await runOp(nativeBackend(), test, { isa, threads: 2 });
      const decoded = loadNative().decodeRows(
        format,
        (test.inputs[1] as GivenWeight).bytes,
        37,
        columns,
        (test.inputs[1] as GivenWeight).scales ?? null,
        'scalar',
      );
      const panel = roundForTiles(decoded);
      for (let n = 0; n < 37; n++)
        for (let k = 0; k < columns; k++)
          if (actual.data[k * 37 + n] !== panel[n * columns + k])
            expect.fail(`weight [${n}, ${k}] is ${actual.data[k * 37 + n]}, not ${panel[n * columns + k]}`);
    });

    it('takes 1 to 40 rows, and more', async () => {
      const columns = columnsOf(format, quantFormat(format).blockSize === 256 ? 1 : 2);
      const all = ['f16', 'q8_0', 'q4_k'].includes(format);
      const counts = all ? Array.from({ length: 40 }, (_, i) => i + 1) : [1, 2, 15, 16, 17, 31, 33, 40];
      for (const rows of [...counts, 64, 100])
        await judgeOp(linearCase(format, rows, 1 + ((rows * 5) % 71), columns), isa, { threads: 1 + (rows % 3) });
    });

    it('takes rows of several chunks', async () => {
      for (const blocks of quantFormat(format).blockSize === 256 ? [2, 3, 5] : [15, 16, 17, 40])
        await judgeOp(linearCase(format, 19, 35, columnsOf(format, blocks)), isa, { threads: 2 });
    });
  });

  it('takes any number of columns', async () => {
    for (const columns of [1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 255, 256, 257, 511, 512, 513, 543, 769, 1025])
      for (const format of ['f32', 'f16', 'bf16', 'f8_e4m3'] as const)
        await judgeOp(linearCase(format, 18, 21, columns), isa);
  });

  it('takes more rows and outputs than a product holds', async () => {
    await judgeOp(linearCase('q4_0', 1041, 77, 64), isa, { threads: 3 });
    await judgeOp(linearCase('q4_k', 33, 2100, 256), isa, { threads: 2 });
    // Several chunks for many strips and blocks: the next chunk is decoded between the products of this one.
    await judgeOp(linearCase('q4_k', 70, 300, 1792), isa, { threads: 1 });
    await judgeOp(linearCase('f8_e4m3', 50, 250, 1333), isa, { threads: 2 });
  });

  it.each(['q4_k', 'q6_k', 'q8_0', 'iq2_xs', 'int4_g32', 'f8_e4m3'] as const)(
    'gives a row the same bits alone and in any company, linear %s',
    async (format) => {
      const columns = format === 'f8_e4m3' ? 1031 : 1280;
      const whole = linearCase(format, 40, 47, columns);
      const expected = await bits(whole, isa, 1);
      const { data } = whole.inputs[0] as GivenValue;
      for (let rows = 1; rows <= 40; rows++) {
        const first = (rows * 7) % (41 - rows);
        const part = { rows, columns, data: data.slice(first * columns, (first + rows) * columns) };
        const test = { ...whole, inputs: [part, ...whole.inputs.slice(1)] };
        expect(await bits(test, isa, 1 + (rows % 3)), `${rows} rows from ${first}`).toEqual(
          expected.subarray(first * 47, (first + rows) * 47),
        );
      }
    },
  );

  it('adds a bias, at any view of x', async () => {
    for (const pad of [
      [1, 2],
      [3, 0],
    ] as const)
      await judgeOp(
        {
          op: 'linear',
          inputs: [{ ...floats(23, 96, 1), pad }, weight('q8_0', [45, 96], 2), weight('bf16', [45], 3)],
          placement: { activation: 'q8_32', tiles: 16 },
        },
        isa,
        { threads: 2 },
      );
  });

  it('leaves passes with fewer rows as they were', async () => {
    const test = linearCase('q4_k', 15, 40, 512, 16);
    const { tiles, ...exact } = test.placement!;
    expect(tiles).toBe(16);
    expect(await bits(test, isa, 2)).toEqual(await bits({ ...test, placement: exact }, isa, 1));
    await judgeOp(test, isa);
    await judgeOp(linearCase('q4_k', 16, 40, 512, 16), isa);
  });

  it('passes on NaN and infinity to their own rows', async () => {
    const test = linearCase('q5_0', 20, 18, 64);
    const x = test.inputs[0] as GivenValue;
    x.data[x.columns] = Infinity;
    x.data[19 * x.columns - 1] = Number.NaN;
    await judgeOp(test, isa);
  });

  it.each(FORMAT_NAMES)('experts, %s', async (format) => {
    const blocks = quantFormat(format).blockSize === 256 ? 1 : 2;
    const [ffn, hidden] = [columnsOf(format, blocks), columnsOf(format, blocks)];
    for (const [rows, tiles] of [
      [7, 1],
      [30, 16],
    ])
      await judgeOp(expertsCase({ rows, topk: 2, experts: 3, ffn, hidden, tiles }, [format, format, format]), isa, {
        threads: 1 + (rows % 3),
      });
  });

  it.each([
    ['q4_k', 'q4_k', 'q6_k', 512],
    ['q4_k', 'q4_k', 'q5_0', 352],
    ['q8_0', 'q8_0', 'bf16', 45],
    ['f8_e4m3', 'f8_e4m3', 'f8_e4m3', 200],
    ['mxfp4', 'mxfp4', 'mxfp4', 96],
    ['iq3_s', 'iq3_xxs', 'iq4_nl', 352],
  ] as const)('experts: %s, %s and %s together', async (gate, up, down, ffn) => {
    const shape = { rows: 21, topk: 3, experts: 4, ffn, hidden: 768, tiles: 4 };
    await judgeOp(expertsCase(shape, [gate, up, down]), isa, { threads: 2 });
  });

  it('experts take 1 to 40 rows', async () => {
    for (let rows = 1; rows <= 40; rows++)
      await judgeOp(
        expertsCase({ rows, topk: 2, experts: 5, ffn: 64, hidden: 32, tiles: 1 + (rows % 9) }, [
          'q4_0',
          'q4_0',
          'q8_0',
        ]),
        isa,
        { threads: 1 + (rows % 3) },
      );
  });

  it.each(['mxfp4', 'q8_0', 'f16'] as const)('experts of 1 to 40 rows each in one pass, %s', async (format) => {
    // Expert e is visited by rows e … 39, by each in another of 40 slots, so that rows of an expert do not lie in a line.
    const [ffn, hidden] = [columnsOf(format, 1), columnsOf(format, 1)];
    const shape = { rows: 40, topk: 40, experts: 40, ffn, hidden, tiles: 1 };
    const visits = (row: number, j: number) => ((j + 3 * row) % 40 <= row ? (j + 3 * row) % 40 : -1);
    const whole = expertsCase(shape, [format, format, format], visits);
    await judgeOp(whole, isa, { threads: 2 });
    // Of which only the larger ones go by tiles: those of 17 rows and more.
    await judgeOp({ ...whole, placement: { ...whole.placement!, tiles: 17 } }, isa, { threads: 3 });
  });

  it('experts in several chunks for many strips', async () => {
    await judgeOp(
      expertsCase({ rows: 60, topk: 2, experts: 3, ffn: 160, hidden: 1280 }, ['q8_0', 'q8_0', 'q4_0']),
      isa,
      {
        threads: 1,
      },
    );
  });

  it.each([
    ['all rows to one expert', () => 2],
    ['nowhere', () => -1],
    ['the same expert twice', (row: number) => row % 4],
    ['few to one and many to another', (row: number, j: number) => (j === 0 ? 0 : row < 5 ? 1 : 3)],
  ] as const)('experts: %s', async (_, choose) => {
    const shape = { rows: 37, topk: 2, experts: 4, ffn: 96, hidden: 64, tiles: 16 };
    await judgeOp(expertsCase(shape, ['q5_1', 'q5_1', 'iq4_nl'], choose), isa, { threads: 2 });
  });

  it.each(['silu', 'swiglu-clamped'] as const)('experts: biases, %s', async (activation) => {
    for (const [hidden, ffn] of [
      [64, 96],
      [77, 45],
    ]) {
      const test = expertsCase({ rows: 26, topk: 2, experts: 4, ffn, hidden, tiles: 12 }, ['bf16', 'bf16', 'f16']);
      const biases = [ffn, ffn, hidden].map((rows, i) => weight('bf16', [4, rows, 1], 20 + i, 1));
      for (const present of [[0, 1, 2], [1], [2]])
        await judgeOp(
          {
            ...test,
            inputs: [...test.inputs, ...biases.map((bias, i) => (present.includes(i) ? bias : null))],
            attributes: { activation },
          },
          isa,
          { threads: 2 },
        );
    }
  });

  it.each(['mxfp4_g32', 'int4_g32', 'bf16'] as const)('experts: rows of gate and up in turn (%s)', async (format) => {
    const [experts, ffn, hidden] = [3, 64, 608];
    const test = expertsCase({ rows: 35, topk: 2, experts, ffn, hidden }, [format, format, format]);
    const inTurn = (start: number) => ({ start, step: 2, of: 2 * ffn });
    const inputs = [
      ...test.inputs.slice(0, 3),
      { ...weight(format, [experts, ffn, hidden], 3, 0.1), rows: inTurn(0) },
      { ...weight(format, [experts, ffn, hidden], 4, 0.1), rows: inTurn(1) },
      test.inputs[5],
      { ...weight('bf16', [experts, ffn, 1], 7, 1), rows: inTurn(0) },
      { ...weight('bf16', [experts, ffn, 1], 8, 1), rows: inTurn(1) },
      weight('bf16', [experts, hidden, 1], 9, 1),
    ];
    try {
      for (const nodes of ['1', '2']) {
        process.env.TANDEM_NUMA = nodes;
        await judgeOp({ ...test, inputs, attributes: { activation: 'swiglu-clamped' } }, isa, { threads: 2 });
      }
    } finally {
      delete process.env.TANDEM_NUMA;
    }
  });

  it('experts: what is not finite stays in its own row', async () => {
    const shape = { rows: 36, topk: 2, experts: 3, ffn: 96, hidden: 64, tiles: 1 };
    const test = expertsCase(shape, ['q8_0', 'q8_0', 'q5_1'], (row, j) => (row + j) % 3);
    const { data } = test.inputs[0] as GivenValue;
    data[17 * 64 + 5] = Number.NaN;
    data[35 * 64] = -Infinity;
    await judgeOp(test, isa);
  });

  it('experts: more rows than a product holds', async () => {
    const shape = { rows: 560, topk: 1, experts: 2, ffn: 288, hidden: 288, tiles: 16 };
    await judgeOp(
      expertsCase(shape, ['q8_0', 'q8_0', 'q8_0'], (row) => (row < 530 ? 0 : 1)),
      isa,
      { threads: 2 },
    );
  });

  it.each([
    ['q4_k', 'q6_k', 512],
    ['bf16', 'f16', 75],
  ] as const)('gives the same bits for any number of threads and nodes (%s, %s)', async (gate, down, ffn) => {
    const layer = expertsCase({ rows: 40, topk: 3, experts: 4, ffn, hidden: 768, tiles: 16 }, [gate, gate, down]);
    const matrix = linearCase(gate, 40, 333, 768);
    try {
      process.env.TANDEM_OVERSUBSCRIBE = '1';
      for (const test of [layer, matrix]) {
        const whole = await bits(test, isa, 1);
        for (const threads of [2, 3, 7]) expect(await bits(test, isa, threads)).toEqual(whole);
        for (const nodes of ['2', '3']) {
          process.env.TANDEM_NUMA = nodes;
          expect(await bits(test, isa, 4)).toEqual(whole);
        }
        delete process.env.TANDEM_NUMA;
      }
    } finally {
      delete process.env.TANDEM_OVERSUBSCRIBE;
      delete process.env.TANDEM_NUMA;
    }
  });
});

describe.skipIf(noNative)('TANDEM_TILES', () => {
  const before = process.env.TANDEM_TILES;
  afterAll(() => {
    if (before === undefined) delete process.env.TANDEM_TILES;
    else process.env.TANDEM_TILES = before;
  });

  it('off: none', () => {
    process.env.TANDEM_TILES = 'off';
    expect(loadNative().machine().tiles).toBe('');
  });

  it('is refused where nobody knows the name', () => {
    process.env.TANDEM_TILES = 'amx2';
    expect(() => loadNative().machine()).toThrow('TANDEM_TILES=amx2');
  });

  it.skipIf(isas.includes('amx'))('is refused where the machine has no such unit', () => {
    process.env.TANDEM_TILES = 'amx';
    expect(() => loadNative().machine()).toThrow('this machine runs off');
  });

  it.skipIf(reason)('off: a step with tiles runs as it would without', async () => {
    process.env.TANDEM_TILES = 'off';
    const test = linearCase('q4_k', 20, 40, 512, 16);
    const { tiles: _, ...placement } = test.placement!;
    const without = { ...test, placement };
    expect(await bits(test, 'avx512', 2)).toEqual(await bits(without, 'avx512', 2));
    expect((await expectedOutputs(test))[0].data).not.toEqual((await expectedOutputs(without))[0].data);
  });
});
