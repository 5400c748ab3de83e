/** The arithmetic of the benchmarks; what the commands print is in test/cli/bench.test.ts. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../backend/reference.ts';
import { buildProgram } from '../../models/index.ts';
import { PUBLIC_CONFIGS } from '../../models/public-configs.ts';
import { headerCheckpoint } from '../../models/synthesize.ts';
import { heaviest, rowsPerMatrix, unitOf } from './ceiling.ts';
import { expertBytes, type MoeShape, moeLayers } from './moe-layers.ts';
import { byOp } from './ops.ts';
import { ratesOf } from './peer.ts';
import { median } from './report.ts';
import { modulusFor, tokenIds } from './token-ids.ts';
import { bytesPerToken } from './weight-bytes.ts';

describe('median', () => {
  it('sorts numbers, not texts, and leaves its argument alone', () => {
    const values = [10, 9, 100];
    expect(median(values)).toBe(10);
    expect(median([1, 4, 2, 3])).toBe(3);
    expect(values).toEqual([10, 9, 100]);
  });
});

describe('token ids', () => {
  it('lie in the vocabulary and differ', () => {
    expect(tokenIds(3, 1000)).toEqual([14, 51, 88]);
    for (const vocabulary of [4, 10, 300, 129280])
      expect(Math.max(...tokenIds(2000, modulusFor(vocabulary)))).toBeLessThan(vocabulary);
    expect(new Set(tokenIds(1000, 1000)).size).toBe(1000);
  });
});

describe('bytes per token', () => {
  it('of a model: one embedding row, the chosen experts, everything else whole', async () => {
    const config = { ...PUBLIC_CONFIGS['qwen3-30b-a3b'], num_hidden_layers: 1 };
    const checkpoint = await headerCheckpoint(config, { name: 'test', mix: 'f16' });
    const { program } = await buildProgram(checkpoint);
    const bytes = (op: string) =>
      program.steps.filter((step) => step.op === op).reduce((sum, step) => sum + bytesPerToken(program, step), 0);
    expect(bytes('embed')).toBe(2048 * 2);
    expect(bytes('experts')).toBe(8 * 3 * 2048 * 768 * 2);
    expect(bytes('add')).toBe(0);
    const attention = 2048 * (4096 + 2 * 512) + 4096 * 2048;
    expect(bytes('linear')).toBe(attention * 2 + 128 * 2048 * 4 + 151936 * 2048 * 2);
  });

  it('of ops: time and bandwidth of all their steps, the slowest first', async () => {
    const config = { ...PUBLIC_CONFIGS['qwen3-0.6b'], num_hidden_layers: 2 };
    const { program } = await buildProgram(await headerCheckpoint(config, { name: 'test', mix: 'f16' }));
    const times = program.steps.map(({ op }) => (op === 'linear' ? 3000 : op === 'add' ? 500 : 0));
    const [linear, add, third] = byOp(program, times, 2, true);
    const count = program.steps.filter(({ op }) => op === 'linear').length;
    expect(linear).toMatchObject({ op: 'linear', steps: count, milliseconds: (3 * count) / 2 });
    expect(add).toEqual({ op: 'add', steps: 4, milliseconds: 1, share: add.share });
    expect(linear.share + add.share).toBeCloseTo(1, 12);
    expect(third.milliseconds).toBe(0);
    const bytes = program.steps.reduce(
      (sum, step) => sum + (step.op === 'linear' ? bytesPerToken(program, step) : 0),
      0,
    );
    expect(linear.gigabytesPerSecond).toBeCloseTo(bytes / linear.milliseconds / 1e6, 9);
  });
});

describe('MoE layers', () => {
  const shape: MoeShape = { hidden: 64, intermediate: 32, experts: 4, topk: 2, format: 'q8_0', layers: 3 };

  it('an expert is gate, up and down', () => {
    expect(expertBytes(shape)).toBe((3 * 64 * 32 * 34) / 32);
  });

  it('are a Program that runs, with finite results and routers that differ; the file goes when it is closed', async () => {
    const { program, checkpoint } = await moeLayers(shape, 8);
    const folder = dirname(checkpoint.files[0].path!);
    expect(program.steps.filter(({ op }) => op === 'experts')).toHaveLength(3);
    const chosen: string[] = [];
    {
      await using executable = await referenceBackend().prepare(program, checkpoint, {
        pages: 1,
        maxRows: 8,
        maxOutputs: 1,
      });
      const stepper = await executable.start({
        tokens: Int32Array.from([0, 1, 2, 3, 4, 5, 6, 7]),
        sequences: [{ slot: 0, firstRow: 0, rows: 8, firstPosition: 0, pages: Int32Array.of(0) }],
        outputs: [{ row: 7, sampling: null }],
        wantLogits: true,
      });
      for (const [index, step] of program.steps.entries()) {
        await stepper.step(index);
        if (step.op === 'router') chosen.push((await stepper.read(step.outputs[0])).join());
        if (step.op === 'experts') {
          const y = (await stepper.read(step.outputs[0])) as Float32Array;
          const size = Math.sqrt(y.reduce((sum, value) => sum + value * value, 0) / y.length);
          expect(size).toBeGreaterThan(1e-3);
          expect(size).toBeLessThan(10);
        }
      }
      await stepper.finish();
    }
    expect(new Set(chosen).size).toBe(3);
    expect(existsSync(folder)).toBe(true);
    await checkpoint.close();
    expect(existsSync(folder)).toBe(false);
  });

  it('refuse a shape that the format does not divide, before anything is written', async () => {
    await expect(moeLayers({ ...shape, format: 'q4_k' }, 8)).rejects.toThrow(/rows of q4_k are a multiple of 256/);
  });
});

describe('the output of a peer', () => {
  const line = '{"prefillTokensPerSecond":30,"decodeTokensPerSecond":7.5}';
  it('ends with its rates', () => {
    expect(ratesOf('x', 0, `loading\n${line}\n`)).toEqual({ prefillTokensPerSecond: 30, decodeTokensPerSecond: 7.5 });
  });
  it.each([
    [1, line],
    [0, 'no JSON'],
    [0, ''],
    [null, '{"prefillTokensPerSecond":0,"decodeTokensPerSecond":1}'],
  ])('code %j with %j is told', (code, output) => {
    expect(() => ratesOf('x', code, output)).toThrow(/x runs this file and prints its figures; it ended with code/);
  });
});

describe('the ceiling', () => {
  it('names the unit that multiplies: tiles from their rows on, int8 for rounded activations, else f32', () => {
    const machine = { isa: 'amx', tiles: 'amx' } as const;
    const placement = { device: 'cpu', activation: 'q8_256', tiles: 16 } as const;
    expect(unitOf(placement, 16, machine)).toBe('amx_bf16');
    expect(unitOf(placement, 15, machine)).toBe('avx512_int8');
    expect(unitOf({ ...placement, activation: 'f32' }, 1, { isa: 'avx2', tiles: '' })).toBe('avx2_f32');
    expect(unitOf(placement, 99, { isa: 'avx512', tiles: 'avx512-bf16' })).toBe('avx512_bf16');
    expect(unitOf(placement, 99, { isa: 'avx512', tiles: 'amx-emulated' })).toBeUndefined();
    expect(unitOf({ device: 'cpu', activation: 'q8_32' }, 99, { isa: 'scalar', tiles: '' })).toBeUndefined();
  });

  it('rows that a matrix meets: all of a pass, of an expert its share of those that are chosen at all', async () => {
    const config = { ...PUBLIC_CONFIGS['qwen3-30b-a3b'], num_hidden_layers: 1 };
    const { program } = await buildProgram(await headerCheckpoint(config, { name: 'test', mix: 'q8_0' }));
    const step = (op: string) => program.steps.find((each) => each.op === op)!;
    expect(rowsPerMatrix(program, step('linear'), 512)).toBe(512);
    expect(rowsPerMatrix(program, step('experts'), 1)).toBeCloseTo(1, 9);
    expect(rowsPerMatrix(program, step('experts'), 512)).toBeCloseTo((512 * 8) / 128, 1);
    expect(heaviest(program, (_, { op }) => (op === 'router' ? 1 : 0))).toBe(step('router'));
  });
});
