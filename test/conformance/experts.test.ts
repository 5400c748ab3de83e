/** experts: formats and their mixtures, routings, ragged sizes; and the exactness rule. */
import { describe, expect, it } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { FORMAT_NAMES, type FormatName } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { activationOf } from '../../src/ops/activation.ts';
import {
  floats,
  type GivenValue,
  integers,
  judgeOp,
  nativeIsas,
  type OpCase,
  random,
  runOp,
  weight,
} from './harness.ts';

const { isas, reason } = await nativeIsas();

interface Shape {
  readonly rows: number;
  readonly topk: number;
  readonly experts: number;
  readonly ffn: number;
  readonly hidden: number;
}

/** `choose` gives the expert of (row, j); −1 skips. */
function expertsCase(
  shape: Shape,
  formats: readonly [gate: FormatName, up: FormatName, down: FormatName],
  choose?: (row: number, j: number) => number,
): OpCase {
  const { rows, topk, experts, ffn, hidden } = shape;
  const next = random(rows + topk);
  const pick = choose ?? (() => Math.floor(next() * (experts + 1)) - 1);
  const ids = Array.from({ length: rows * topk }, (_, i) => pick(Math.floor(i / topk), i % topk));
  const [gate, up, down] = formats;
  return {
    op: 'experts',
    inputs: [
      floats(rows, hidden, 1),
      integers(rows, topk, ids),
      floats(rows, topk, 2),
      weight(gate, [experts, ffn, hidden], 3, 0.1),
      { ...weight(up, [experts, ffn, hidden], 4, 0.1), split: true },
      weight(down, [experts, hidden, ffn], 5, 0.1),
    ],
    attributes: { activation: 'silu' },
    placement: { activation: activationOf(gate), middle: activationOf(down) },
  };
}

async function bits(test: OpCase, isa: Isa, threads: number): Promise<Int32Array> {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const [{ data }] = await runOp(nativeBackend(), test, { isa, threads });
  return new Int32Array(data.buffer, data.byteOffset, data.length);
}

function rowsOf(test: OpCase, start: number, end: number): OpCase {
  const values = (test.inputs.slice(0, 3) as GivenValue[]).map((given) => ({
    ...given,
    rows: end - start,
    data: given.data.slice(start * given.columns, end * given.columns),
  }));
  return { ...test, inputs: [...values, ...test.inputs.slice(3)] };
}

/** A size that fits the format and is no multiple of a unit of work where the format allows it. */
function sizeOf(format: FormatName, blocks: number): number {
  const { blockSize } = quantFormat(format);
  return blockSize === 1 ? 32 * blocks + 13 : blockSize * blocks;
}

describe.skipIf(reason).each(isas)(`experts, %s ${reason ?? ''}`, (isa) => {
  it.each(FORMAT_NAMES)('%s', async (format) => {
    const blocks = quantFormat(format).blockSize === 256 ? 1 : 3;
    const shape = { topk: 2, experts: 3, ffn: sizeOf(format, blocks), hidden: sizeOf(format, blocks) };
    for (const rows of [1, 6])
      await judgeOp(expertsCase({ ...shape, rows }, [format, format, format]), isa, { threads: rows === 1 ? 2 : 3 });
  });

  it.each([
    ['q4_k', 'q4_k', 'q6_k', 512],
    ['q4_k', 'q4_k', 'q5_0', 352],
    ['q4_k', 'q4_k', 'q8_0', 352],
    ['q5_k', 'q4_k', 'q6_k', 256],
    ['q8_0', 'q8_0', 'bf16', 45],
    ['f8_e4m3', 'f8_e4m3', 'f8_e4m3', 200],
    ['mxfp4', 'mxfp4', 'mxfp4', 96],
    ['iq1_s', 'iq1_s', 'iq2_xxs', 256],
    ['iq3_s', 'iq3_xxs', 'iq4_nl', 352],
  ] as const)('%s, %s and %s together', async (gate, up, down, ffn) => {
    const shape = { rows: 9, topk: 3, experts: 4, ffn, hidden: 256 };
    await judgeOp(expertsCase(shape, [gate, up, down]), isa, { threads: 2 });
  });

  it('takes 1 to 40 rows', async () => {
    for (let rows = 1; rows <= 40; rows++)
      await judgeOp(expertsCase({ rows, topk: 2, experts: 5, ffn: 64, hidden: 32 }, ['q4_0', 'q4_0', 'q8_0']), isa, {
        threads: 1 + (rows % 3),
      });
  });

  it.each([
    ['all rows to one expert', () => 2],
    ['nowhere', () => -1],
    ['the same expert twice', (row: number) => row % 4],
    ['some rows nowhere', (row: number, j: number) => (row % 2 ? -1 : (row + j) % 4)],
  ] as const)('sends %s', async (_, choose) => {
    const shape = { rows: 13, topk: 2, experts: 4, ffn: 96, hidden: 64 };
    await judgeOp(expertsCase(shape, ['q5_1', 'q5_1', 'iq4_nl'], choose), isa, { threads: 2 });
  });

  it('rounds the intermediate as it is told', async () => {
    const test = expertsCase({ rows: 5, topk: 2, experts: 3, ffn: 256, hidden: 256 }, ['q8_0', 'q8_0', 'q8_0']);
    for (const activation of ['f32', 'bf16', 'q8_32', 'q8_256'] as const)
      for (const middle of ['f32', 'bf16', 'q8_32', 'q8_256'] as const)
        await judgeOp({ ...test, placement: { activation, middle } }, isa);
  });

  it('passes on what is not finite, to its own row', async () => {
    const test = expertsCase(
      { rows: 6, topk: 2, experts: 3, ffn: 64, hidden: 64 },
      ['q8_0', 'q8_0', 'q8_0'],
      (r) => r % 3,
    );
    (test.inputs[0] as GivenValue).data[64 + 5] = Number.NaN;
    (test.inputs[0] as GivenValue).data[4 * 64] = -Infinity;
    await judgeOp(test, isa);
  });

  it.each([
    ['q4_k', 'q6_k', 512],
    ['q8_0', 'q5_0', 160],
    ['bf16', 'f16', 75],
  ] as const)('gives the same bits for any batch and any number of threads (%s, %s)', async (gate, down, ffn) => {
    const test = expertsCase({ rows: 12, topk: 3, experts: 4, ffn, hidden: 256 }, [gate, gate, down]);
    const whole = await bits(test, isa, 1);
    for (const threads of [2, 3, 3]) expect(await bits(test, isa, threads)).toEqual(whole);
    for (const [start, end] of [
      [0, 1],
      [11, 12],
      [2, 7],
    ])
      expect(await bits(rowsOf(test, start, end), isa, 2)).toEqual(whole.subarray(start * 256, end * 256));
  });

  it.each([
    ['f32', 'silu', {}],
    ['bf16', 'swiglu-clamped', {}],
    ['f16', 'swiglu-clamped', { alpha: 1.2, limit: 0.75 }],
  ] as const)('adds biases in %s, %s', async (format, activation, more) => {
    const shape = { rows: 7, topk: 3, experts: 4, ffn: 96, hidden: 64 };
    const test = expertsCase(shape, ['mxfp4', 'mxfp4', 'mxfp4']);
    const biases = [96, 96, 64].map((rows, i) => weight(format, [4, rows, 1], 20 + i, 1));
    for (const present of [[0, 1, 2], [2], [0]])
      await judgeOp(
        {
          ...test,
          inputs: [...test.inputs, ...biases.map((bias, i) => (present.includes(i) ? bias : null))],
          attributes: { activation, ...more },
        },
        isa,
        { threads: 2 },
      );
  });

  it.each(['mxfp4_g32', 'int4_g32', 'bf16'] as const)('takes rows of gate and up in turn (%s)', async (format) => {
    const [experts, ffn, hidden] = [3, 64, 96];
    const test = expertsCase({ rows: 5, topk: 2, experts, ffn, hidden }, [format, format, format]);
    const inTurn = (start: number, ffn: number) => ({ start, step: 2, of: 2 * ffn });
    const inputs = [
      ...test.inputs.slice(0, 3),
      { ...weight(format, [experts, ffn, hidden], 3, 0.1), rows: inTurn(0, ffn) },
      { ...weight(format, [experts, ffn, hidden], 4, 0.1), rows: inTurn(1, ffn) },
      test.inputs[5],
      { ...weight('bf16', [experts, ffn, 1], 7, 1), rows: inTurn(0, ffn) },
      { ...weight('bf16', [experts, ffn, 1], 8, 1), rows: inTurn(1, ffn) },
      weight('bf16', [experts, hidden, 1], 9, 1),
    ];
    await judgeOp({ ...test, inputs, attributes: { activation: 'swiglu-clamped' } }, isa, { threads: 2 });
  });

  it('clamps what is not finite, and lets NaN pass', async () => {
    const shape = { rows: 4, topk: 1, experts: 2, ffn: 32, hidden: 32 };
    const test = expertsCase(shape, ['f32', 'f32', 'f32'], () => 1);
    const x = (test.inputs[0] as GivenValue).data;
    x[5] = Number.NaN;
    x[32] = Infinity;
    x.fill(1e30, 64, 96);
    await judgeOp({ ...test, attributes: { activation: 'swiglu-clamped' } }, isa);
  });

  it('refuses an expert that does not exist', async () => {
    const test = expertsCase({ rows: 2, topk: 1, experts: 2, ffn: 32, hidden: 32 }, ['q8_0', 'q8_0', 'q8_0'], () => 2);
    await expect(bits(test, isa, 1)).rejects.toThrow('2 of 2');
  });
});
