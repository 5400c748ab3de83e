/**
 * Native kernels run whole models: against PyTorch's logits with unrounded activations, and against the reference with
 * the rounding of the fast paths, on every instruction set of this machine.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { referenceBackend } from '../../src/backend/reference.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { openCheckpoint } from '../../src/formats/open.ts';
import { nativeMachine } from '../../src/placement/machine.ts';
import { nativeIsas } from '../conformance/harness.ts';
import { floats } from './files.ts';
import { tinyModel } from './make-tiny.ts';
import { logitsOf, nmse, placedProgram, type RunOptions } from './run.ts';
import { TINY_CONFIGS } from './tiny-configs.ts';

const { isas, reason } = await nativeIsas();
const { ids } = JSON.parse(readFileSync('models/jug/golden/index.json', 'utf8')) as { ids: number[][] };
const models = process.env.TANDEM_MODELS;

async function native() {
  const { nativeBackend } = await import('../../src/backend/native/backend.ts');
  return nativeBackend();
}

/** Model, its golden logits, and the bound of its rounded Program against the reference (docs: numerics). */
const MODELS: readonly (readonly [model: string, golden: string, bound: number])[] = [
  ['models/jug/hf', 'models/jug/golden/hf.f32', 1e-10],
  ['models/jug/jug-Q8_0.gguf', 'models/jug/golden/Q8_0.f32', 5e-4],
  ...['Q4_K_M', 'Q2_K', 'IQ4_XS', 'IQ2_XXS', 'IQ1_S', 'MXFP4'].map(
    (format) =>
      [join(models ?? '', `jug/jug-${format}.gguf`), join(models ?? '', `jug/golden/${format}.f32`), 5e-4] as const,
  ),
];

const expectations = new Map<string, Promise<Float32Array>>();

/** The reference's logits; instruction sets that place a model alike share them. */
async function expectedLogits(checkpoint: Checkpoint, options: RunOptions): Promise<Float32Array> {
  const { steps } = await placedProgram(checkpoint, options);
  const key = `${checkpoint.name} ${JSON.stringify(steps.map(({ placement }) => placement))}`;
  const expected = expectations.get(key) ?? logitsOf(referenceBackend(), checkpoint, ids, options);
  expectations.set(key, expected);
  return expected;
}

describe.skipIf(reason)(`native ${reason ?? ''}`, () => {
  describe.each(isas)('%s', (isa) => {
    test.for(MODELS)('%s against PyTorch', async ([model, golden], { skip }) => {
      if (!existsSync(model)) return skip('needs TANDEM_MODELS, a folder of models too large to commit');
      await using open = await opened(model);
      const logits = await logitsOf(await native(), open.checkpoint, ids, { isa });
      expect(nmse(logits, floats(golden))).toBeLessThan(1e-9);
    });

    test.for(MODELS)('%s against the reference', async ([model, , bound], { skip }) => {
      if (!existsSync(model)) return skip('needs TANDEM_MODELS, a folder of models too large to commit');
      await using open = await opened(model);
      const options = { isa, activations: 'rounded', kvType: 'f32' } as const;
      const expected = await expectedLogits(open.checkpoint, options);
      expect(nmse(await logitsOf(await native(), open.checkpoint, ids, options), expected)).toBeLessThan(bound);
    });

    test.for(MODELS)('%s in fast mode against the reference', async ([model], { skip }) => {
      const machine = nativeMachine(isa);
      if (!existsSync(model)) return skip('needs TANDEM_MODELS, a folder of models too large to commit');
      await using open = await opened(model);
      const options = { isa, activations: 'rounded', kvType: 'f32', machine } as const;
      const expected = await expectedLogits(open.checkpoint, options);
      expect(nmse(await logitsOf(await native(), open.checkpoint, ids, options), expected)).toBeLessThan(5e-4);
    });
  });
});

test.skipIf(reason)(`native reads every layout of experts to the same bits ${reason ?? ''}`, async () => {
  const tiny = await tinyModel(TINY_CONFIGS.mixtral);
  const logits = await Promise.all(
    (['fused', 'each', 'gate-up'] as const).map(async (experts) => {
      const checkpoint = await tiny.gguf({ experts });
      const result = await logitsOf(await native(), checkpoint, [[1, 2, 3, 4, 5]]);
      await checkpoint.close();
      return result;
    }),
  );
  expect(logits[0].every(Number.isFinite)).toBe(true);
  expect(logits[1]).toEqual(logits[0]);
  expect(logits[2]).toEqual(logits[0]);
});

async function opened(model: string) {
  const checkpoint = await openCheckpoint(model);
  return { checkpoint, [Symbol.asyncDispose]: () => checkpoint.close() };
}
