/** gpt-oss: its description in both containers, and where its files hold what. */
import { describe, expect, test } from 'vitest';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { OPS } from '../ops/index.ts';
import { printProgram } from '../program/print.ts';
import { validateProgram } from '../program/validate.ts';
import type { GptOssConfig } from './gpt-oss.ts';
import { buildProgram } from './index.ts';
import { PUBLIC_CONFIGS } from './public-configs.ts';
import { headerCheckpoint } from './synthesize.ts';
import { headerOnly, huggingFaceTensors, syntheticModel } from './synthetic.ts';

const SMALL = {
  ...PUBLIC_CONFIGS['gpt-oss-20b'],
  num_hidden_layers: 4,
  layer_types: ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'],
};

async function folder(change: Record<string, unknown> = {}): Promise<Checkpoint> {
  const tensors = huggingFaceTensors(await syntheticModel(SMALL));
  return headerOnly('huggingface', 'gpt-oss', tensors, { config: { ...SMALL, ...change } });
}

const gguf = () => headerCheckpoint(SMALL, { name: 'gpt-oss', mix: 'q8_0' });

describe.each([
  ['Hugging Face', folder],
  ['GGUF', gguf],
] as const)('%s', (_, open) => {
  test('every tensor is used, the Program is valid', async () => {
    const { program, unused } = await buildProgram(await open());
    expect(validateProgram(program, OPS)).toBe(program);
    expect(unused).toEqual([]);
  });

  test('windows alternate with full layers, all with sinks', async () => {
    const { program } = await buildProgram(await open());
    const steps = program.steps.filter((step) => step.op === 'attention');
    expect(steps.map((step) => step.attributes.window)).toEqual([128, undefined, 128, undefined]);
    expect(steps.every((step) => step.inputs[1]?.kind === 'weight')).toBe(true);
  });

  test('the ramp of YaRN ends where it falls, not at whole pairs', async () => {
    const { config, program } = await buildProgram(await open());
    const { attention } = config as GptOssConfig;
    expect(attention.rope).toMatchObject({ base: 150000, scaling: { type: 'yarn', factor: 32, truncate: false } });
    const rope = program.steps.find((step) => step.op === 'rope')!;
    // As OpenAI's model.py has it: 32 pairs, ramp between pair(32) and pair(1), 0.1·ln(32) + 1.
    const pair = (turns: number) => (32 * Math.log(4096 / (turns * 2 * Math.PI))) / Math.log(150000);
    const [low, high] = [pair(32), pair(1)];
    expect(low % 1).not.toBe(0);
    const frequencies = Array.from({ length: 32 }, (_, i) => {
      const frequency = 150000 ** (-i / 32);
      const mask = 1 - Math.min(Math.max((i - low) / (high - low), 0), 1);
      return (frequency / 32) * (1 - mask) + frequency * mask;
    });
    (rope.attributes.frequencies as number[]).forEach((frequency, i) => {
      expect(frequency / frequencies[i]).toBeCloseTo(1, 6);
    });
    expect(rope.attributes.magnitude).toBeCloseTo(0.1 * Math.log(32) + 1, 6);
  });

  test('experts have biases and a clamped activation', async () => {
    const { program } = await buildProgram(await open());
    const experts = program.steps.find((step) => step.op === 'experts')!;
    expect(experts.attributes).toEqual({ activation: 'swiglu-clamped', alpha: 1.702, limit: 7 });
    const weights = experts.inputs.slice(3).map((input) => program.weights[(input as { weight: number }).weight]);
    expect(weights.map((weight) => weight.shape)).toEqual([
      [32, 2880, 2880],
      [32, 2880, 2880],
      [32, 2880, 2880],
      [32, 2880, 1],
      [32, 2880, 1],
      [32, 2880, 1],
    ]);
  });
});

test('its own files hold gate and up rows in turn', async () => {
  const { program } = await buildProgram(await folder());
  const views = program.weights
    .filter((weight) => weight.name.includes('layers.0.mlp.experts'))
    .map(({ rows }) => rows);
  const inTurn = (start: number) => ({ start, of: 5760, step: 2 });
  expect(views).toEqual([inTurn(0), inTurn(1), undefined, inTurn(0), inTurn(1), undefined]);
});

/** The experts of layer 0 as transformers writes them. */
async function tuned(format: string, gateUp: number[]): Promise<Checkpoint> {
  const checkpoint = await folder();
  const tensors = new Map(checkpoint.tensors);
  const path = 'model.layers.0.mlp.experts';
  const replace = (name: string, shape: number[]) => {
    const { file, offset } = tensors.get(`${name}_blocks`)!;
    for (const part of ['blocks', 'scales']) tensors.delete(`${name}_${part}`);
    tensors.set(name, { name, shape, format, file, offset, bytes: 2 * shape.reduce((a, b) => a * b) });
  };
  replace(`${path}.gate_up_proj`, gateUp);
  replace(`${path}.down_proj`, [32, 2880, 2880]);
  return { ...checkpoint, tensors };
}

test('experts in bf16 are stored column by column', async () => {
  const { program, unused } = await buildProgram(await tuned('bf16', [32, 2880, 5760]));
  expect(unused).toEqual([]);
  const inTurn = { start: 1, of: 5760, step: 2 };
  const matrices = program.weights.filter(({ name, shape }) => name.includes('layers.0.mlp.experts') && shape[2] > 1);
  expect(matrices.map(({ byColumns }) => byColumns)).toEqual([true, true, true]);
  expect(matrices.map(({ rows }) => rows)).toEqual([{ ...inTurn, start: 0 }, inTurn, undefined]);
  const text = printProgram(program);
  expect(text).toContain('model.layers.0.mlp.experts.gate_up_proj[bf16 32x2880x2880 rows 1+2n of 5760 by columns]');
  // Packed numbers lie along the rows.
  expect(text).toContain('model.layers.1.mlp.experts.down_proj[mxfp4_g32 32x2880x2880]');
});

test('bf16 experts stored row by row are refused: a square matrix would not show it', async () => {
  await expect(buildProgram(await tuned('bf16', [32, 5760, 2880]))).rejects.toThrow('it is 32 × 5760 × 2880');
});

test('layer types that are unknown or too few are refused', async () => {
  for (const layer_types of [['full_attention'], [...SMALL.layer_types.slice(1), 'chunked_attention']])
    await expect(buildProgram(await folder({ layer_types }))).rejects.toThrow('layer_types names');
});
