/**
 * NUMA nodes, virtual ones (TANDEM_NUMA): weights split over them by rows give the same bits as weights that are not, for
 * any number of nodes and threads. Threads beyond the cores of this machine come by TANDEM_OVERSUBSCRIBE.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { type FormatName, rowBytes } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { load } from '../../src/index.ts';
import { activationOf } from '../../src/ops/activation.ts';
import { tinyModel } from '../golden/make-tiny.ts';
import { placedProgram } from '../golden/run.ts';
import { TINY_CONFIGS } from '../golden/tiny-configs.ts';
import { floats, integers, judgeOp, nativeIsas, type OpCase, random, runOp, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

// Rows of a node are multiples of 64: 200 rows and 330 rows split unevenly over 2 and 3 nodes, and leave ragged ends.
const linear = (format: FormatName, rows: number): OpCase => ({
  op: 'linear',
  inputs: [floats(rows, 256, 1), weight(format, [330, 256], 2), weight('f32', [330], 3)],
  placement: { activation: activationOf(format) },
});

function experts(format: FormatName, rows: number): OpCase {
  const next = random(rows);
  const ids = Array.from({ length: rows * 2 }, () => Math.floor(next() * 4) - 1);
  return {
    op: 'experts',
    inputs: [
      floats(rows, 256, 1),
      integers(rows, 2, ids),
      floats(rows, 2, 2),
      weight(format, [3, 256, 256], 3, 0.1),
      { ...weight(format, [3, 256, 256], 4, 0.1), split: true },
      weight(format, [3, 256, 256], 5, 0.1),
    ],
    attributes: { activation: 'silu' },
    placement: { activation: activationOf(format), middle: activationOf(format) },
  };
}

/** Gate and up in one tensor: in turn, or gate above up. */
const together =
  (layout: 'in turn' | 'above') =>
  (format: FormatName, rows: number): OpCase => {
    const test = experts(format, rows);
    const view = (start: number) =>
      layout === 'above' ? { start: 256 * start, of: 512 } : { start, step: 2, of: 512 };
    const inputs = test.inputs.map((input, k) =>
      k === 3 || k === 4 ? { ...weight(format, [3, 256, 256], k, 0.1), rows: view(k - 3) } : input,
    );
    return { ...test, inputs };
  };

/** Nodes and threads: fewer threads than nodes, as many, uneven numbers of them. */
const LAYOUTS = [
  [2, 1],
  [2, 2],
  [2, 3],
  [3, 2],
  [3, 7],
  [1, 4],
];

async function bits(test: OpCase, isa: Isa, nodes: number, threads: number): Promise<Int32Array> {
  vi.stubEnv('TANDEM_NUMA', String(nodes));
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  const [{ data }] = await runOp(nativeBackend(), test, { isa, threads });
  return new Int32Array(data.buffer, data.byteOffset, data.length);
}

afterEach(() => {
  vi.unstubAllEnvs();
});

describe.skipIf(reason).each(isas)(`nodes, %s ${reason ?? ''}`, (isa) => {
  for (const [name, make] of [
    ['linear', linear],
    ['experts', experts],
    ['experts, gate above up,', together('above')],
    ['experts, gate and up in turn,', together('in turn')],
  ] as const) {
    // Rows that take turns share no scales.
    const formats: FormatName[] = ['bf16', 'q4_k', 'q8_0', name.includes('in turn') ? 'mxfp4_g32' : 'f8_e4m3'];
    it.each(formats)(`${name} of %s: the same bits on any of them`, async (format) => {
      for (const rows of [1, 7]) {
        const test = make(format, rows);
        const whole = await bits(test, isa, 1, 1);
        for (const [nodes, threads] of LAYOUTS)
          expect(await bits(test, isa, nodes, threads), `${nodes} nodes, ${threads} threads`).toEqual(whole);
      }
    });

    it(`${name} on bf16 tiles: the same bits on any of them`, async () => {
      const exact = make('q4_k', 21);
      const test = { ...exact, placement: { ...exact.placement!, tiles: 1 } };
      const whole = await bits(test, isa, 1, 1);
      for (const [nodes, threads] of LAYOUTS)
        expect(await bits(test, isa, nodes, threads), `${nodes} nodes, ${threads} threads`).toEqual(whole);
    });

    it(`${name} split over two is right`, async () => {
      vi.stubEnv('TANDEM_NUMA', '2');
      await judgeOp(make('q4_k', 7), isa, { threads: 2 });
    });
  }
});

describe.skipIf(reason)('a model on nodes', () => {
  it.each(['pages', 'mmap'] as const)(
    'is split where it is in memory of its own (%s), and says the same',
    async (how) => {
      const options = { load: how, threads: 3, contextLength: 128 };
      vi.stubEnv('TANDEM_NUMA', '1');
      await using whole = await load(undefined, options);
      vi.stubEnv('TANDEM_NUMA', '2');
      await using parted = await load(undefined, options);
      expect(whole.info.execution).toMatchObject({ nodes: 1, 'split bytes': 0 });
      const split = Number(parted.info.execution['split bytes']);
      expect(parted.info.execution.nodes).toBe(2);
      if (how === 'pages') expect(split).toBeGreaterThan(0.5 * parted.info.weights);
      else expect(split).toBeLessThan(0.5 * parted.info.weights); // small tensors are read in every mode
      const prompt = whole.tokenize('How do I get 4 L of water?');
      const ask = { temperature: 1, seed: 7, maxTokens: 24, ignoreEos: true };
      expect((await parted.generate(prompt, ask)).tokens).toEqual((await whole.generate(prompt, ask)).tokens);
    },
  );

  it.each([
    ['gate and up in turn', 'gpt-oss', { intermediate_size: 128 }],
    ['gate above up', 'qwen3-moe', { moe_intermediate_size: 128 }],
  ] as const)('has all matrices split, %s too', async (_, name, change) => {
    vi.stubEnv('TANDEM_NUMA', '2');
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const tiny = await tinyModel({ ...TINY_CONFIGS[name], ...change, hidden_size: 128 });
    const checkpoint = await tiny.huggingFace({ fused: name !== 'gpt-oss' });
    const program = await placedProgram(checkpoint);
    const sizes = { pages: 1, maxRows: 1, maxOutputs: 1, threads: 2 };
    await using executable = await nativeBackend().prepare(program, checkpoint, sizes);
    const matrices = program.steps.flatMap(({ op, inputs }) =>
      op === 'experts' ? inputs.slice(3, 6) : op === 'linear' ? [inputs[1]] : [],
    );
    const bytes = matrices.map((input) => {
      const { shape, format } = program.weights[(input as { weight: number }).weight];
      const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
      return shape.at(-2)! < 2 * 64 ? 0 : rows * rowBytes(quantFormat(format), shape.at(-1)!);
    });
    expect(executable.description['split bytes']).toBe(bytes.reduce((sum, size) => sum + size, 0));
  });

  it('refuses a number of nodes that is none', async () => {
    vi.stubEnv('TANDEM_NUMA', 'many');
    await expect(load(undefined)).rejects.toThrow(/TANDEM_NUMA is a number of nodes, 1 to 16; given many/);
  });
});
