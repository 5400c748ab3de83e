/**
 * Conformance of ops on a GPU: the same harness, references and bounds as on the CPU. Over the fake driver some cases; with
 * TANDEM_CARD=1 on the card of this machine, and all of them.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { FORMAT_NAMES, type FormatName } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import type { KvType } from '../../src/program/program.ts';
import { expectedOutputs, floats, integers, judgeOutputs, type OpCase, runOp, weight } from '../conformance/harness.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';
import { oneOpOnGpu } from './one-op.ts';

const CARD = process.env.TANDEM_CARD === '1';
const reason = CARD ? undefined : fakeDriverProblem();
const FORMATS: readonly FormatName[] = CARD ? FORMAT_NAMES : ['q4_k', 'q6_k', 'f8_e4m3', 'bf16'];

/** Throws where a number leaves its bound. */
async function judge(test: OpCase): Promise<void> {
  judgeOutputs(test, await runOp(oneOpOnGpu, test), await expectedOutputs(test), 'cuda');
}

const columnsOf = (format: FormatName, blocks: number) => {
  const { blockSize } = quantFormat(format);
  return blockSize === 1 ? 75 : blockSize * blocks;
};

describe.skipIf(reason)(`ops on GPUs ${reason ?? ''}`, () => {
  beforeAll(async () => {
    if (!CARD) await useFakeDriver('gpus=1;memory=4000000000');
  }, 300_000);

  it.each(FORMATS)('embed and linear of %s, few rows, many, and on tiles', async (format) => {
    await judge({ op: 'embed', inputs: [weight(format, [40, columnsOf(format, 2)], 1)], tokens: [3, 39, 0, 3] });
    for (const [rows, outputs, tiles] of [
      [1, 37],
      [3, 16],
      [9, 5],
      [17, 131, 16],
      ...(CARD
        ? [
            [130, 263, 1],
            [64, 129],
            [1, 1],
          ]
        : []),
    ]) {
      // biome-ignore format: rows, outputs, tiles
      const columns = columnsOf(format, 3);
      await judge({
        op: 'linear',
        inputs: [
          { ...floats(rows, columns, rows), pad: rows === 3 ? [1, 2] : undefined },
          weight(format, [outputs, columns], 2),
          rows === 9 ? weight('f32', [outputs], 3) : null,
        ],
        placement: { activation: 'f32', ...(tiles ? { tiles } : {}) },
      });
    }
  });

  it.each(FORMATS)('experts of %s, some of them nobody’s', async (format) => {
    const columns = quantFormat(format).blockSize === 256 ? 256 : 96;
    for (const tiles of [undefined, 1]) {
      const rows = tiles ? 21 : 2;
      const ids = Array.from({ length: rows * 2 }, (_, i) => ((i * 5) % 6) - 1);
      await judge({
        op: 'experts',
        inputs: [
          floats(rows, columns, 1),
          integers(rows, 2, ids.map((id, i) => (i % 2 && id === ids[i - 1] ? -1 : id))), // biome-ignore format: no expert twice
          floats(rows, 2, 2),
          weight(format, [5, columns, columns], 3, 0.1),
          weight(format, [5, columns, columns], 4, 0.1),
          weight(format, [5, columns, columns], 5, 0.1),
        ],
        attributes: { activation: 'silu' },
        placement: { activation: 'f32', ...(tiles ? { tiles } : {}) },
      });
    }
  });

  it.each(['f32', 'bf16'] as const)('attention over a cache of %s, across pages and parts', async (type: KvType) => {
    for (const [heads, kvHeads, headSize, valueSize] of [
      [4, 2, 64, 64],
      [6, 1, 24, 40],
    ]) {
      // biome-ignore format: a shape
      const sequences = [
        { rows: 3, firstPosition: 66 },
        { rows: 1, firstPosition: CARD ? 1300 : 300 },
      ];
      const positions = 3 + 66 + 1 + sequences[1].firstPosition;
      await judge({
        op: 'attention',
        inputs: [{ ...floats(4, heads * headSize, 1), pad: [3, 2] }, weight('f32', [heads], 4)],
        attributes: { heads, kvHeads, headSize, valueSize, scale: headSize ** -0.5, window: 40 },
        sequences,
        context: {
          op: 'kv-append',
          inputs: [floats(positions, kvHeads * headSize, 2), floats(positions, kvHeads * valueSize, 3)],
          heads: kvHeads,
          type,
        },
      });
    }
  });

  it.each([
    [false, 'f32'],
    [true, 'f32'],
    [false, 'bf16'],
    [true, 'e4m3'],
  ] as [boolean, KvType][])('mla, its weights split: %s, over a cache of %s', async (split, type) => {
    const shape = { heads: 3, nope: 32, rope: 16, latent: 64, value: 32 };
    const { heads, nope, rope, latent, value } = shape;
    await judge({
      op: 'mla',
      inputs: [
        { ...floats(5, heads * (nope + rope), 1), pad: [1, 2] },
        split ? null : weight('q8_0', [heads * (nope + value), latent], 2, 0.2),
        split ? weight('q8_0', [heads, latent, nope], 3, 0.2) : null,
        split ? weight('q8_0', [heads, value, latent], 4, 0.2) : null,
      ],
      attributes: { ...shape, scale: (nope + rope) ** -0.5 },
      sequences: [{ rows: 5, firstPosition: 62 }],
      context: { op: 'mla-append', inputs: [floats(67, latent, 5), floats(67, rope, 6)], type },
    });
  });

  it('router, norms, rotation and what moves numbers', async () => {
    for (const score of ['softmax', 'sigmoid'])
      await judge({
        op: 'router',
        inputs: [floats(5, 256, 1, 2), weight('f32', [256], 3, 0.1)],
        attributes: { topk: 8, groups: 8, groupTopk: 4, score, groupScore: 'top2', normalize: true, scale: 2.5 },
      });
    const norm = { op: 'rms-norm', attributes: { epsilon: 1e-6, group: 64 } };
    await judge({ ...norm, inputs: [{ ...floats(5, 192, 1), pad: [1, 1] }, weight('bf16', [64], 2)] });
    await judge({ op: 'add', inputs: [floats(5, 77, 1), floats(5, 77, 2)] });
    await judge({ op: 'glu', inputs: [floats(5, 77, 1), floats(5, 77, 2)], attributes: { activation: 'silu' } });
    const frequencies = Array.from({ length: 16 }, (_, i) => 10000 ** (-i / 16));
    for (const style of ['halves', 'pairs'])
      await judge({
        op: 'rope',
        inputs: [floats(4, 3 * 48, 1)],
        attributes: { headSize: 48, offset: 16, width: 32, frequencies, magnitude: 1.25, style },
        sequences: [{ rows: 4, firstPosition: 131000 }],
      });
  });

  it('a bound that is passed is seen', async () => {
    const test: OpCase = { op: 'add', inputs: [floats(2, 8, 1), floats(2, 8, 2)] };
    const [actual] = await runOp(oneOpOnGpu, test);
    actual.data[3] += 1;
    const expected = await expectedOutputs(test);
    expect(() => judgeOutputs(test, [actual], expected, 'cuda')).toThrow(/cuda: add .*\[3\]/);
  });
});
