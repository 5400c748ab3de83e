/** Experts in packed formats of Hugging Face give the logits of the same numbers in f32, on every backend. */
import { describe, expect, test } from 'vitest';
import { referenceBackend } from '../../src/backend/reference.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { buildProgram } from '../../src/models/index.ts';
import { nativeIsas } from '../conformance/harness.ts';
import { type HuggingFaceLayout, tinyModel } from './make-tiny.ts';
import type { PackedFormat } from './pack.ts';
import { logitsOf, nmse } from './run.ts';
import { TINY_CONFIGS } from './tiny-configs.ts';

const { isas, reason } = await nativeIsas();
const IDS = Array.from({ length: 70 }, (_, i) => (i * 37 + 11) % 272);
const wide = { hidden_size: 64, moe_intermediate_size: 96 };

const CASES: readonly (readonly [string, PackedFormat, object, HuggingFaceLayout])[] = [
  ['kimi-k2, one group, YaRN without a ramp', 'int4_g32', wide, {}],
  ['qwen3-moe', 'f8_e4m3', { hidden_size: 160, moe_intermediate_size: 140, num_experts: 4 }, {}],
  ['qwen3-moe', 'f8_e4m3', { hidden_size: 160, moe_intermediate_size: 128, num_experts: 4 }, { fused: true }],
  ['glm4-moe', 'f8_e4m3', { hidden_size: 160, moe_intermediate_size: 256 }, { fused: true }],
];

describe.each(CASES)('%s in %s %o', (name, format, change, layout) => {
  const tiny = tinyModel({ ...TINY_CONFIGS[name], ...change }, 1, { experts: format });

  test('the packed folder has no other tensors', async () => {
    const checkpoint = await (await tiny).huggingFace({ packed: true, ...layout });
    const { program, unused } = await buildProgram(checkpoint);
    expect(unused).toEqual([]);
    const experts = program.steps.find((step) => step.op === 'experts')!;
    const weight = program.weights[(experts.inputs[3] as { weight: number }).weight];
    expect([weight.format, weight.scaleType]).toEqual([format, format === 'f8_e4m3' ? 'bf16' : undefined]);
    await checkpoint.close();
  });

  const logits = async (checkpoint: Checkpoint, isa?: string) => {
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const result = await logitsOf(isa ? nativeBackend() : referenceBackend(), checkpoint, [IDS], { isa });
    await checkpoint.close();
    return result;
  };

  test('reference: the same bits', async () => {
    const expected = await logits(await (await tiny).huggingFace());
    expect(await logits(await (await tiny).huggingFace({ packed: true, ...layout }))).toEqual(expected);
  });

  test.skipIf(reason).each(isas)(`native %s ${reason ?? ''}`, async (isa) => {
    const expected = await logits(await (await tiny).huggingFace());
    const packed = await (await tiny).huggingFace({ packed: true, ...layout });
    expect(nmse(await logits(packed, isa), expected)).toBeLessThan(1e-10);
  });
});

// The reference reads both in layouts.test.ts.
describe.skipIf(reason).each(isas)(`gpt-oss, native %s ${reason ?? ''}`, (isa) => {
  test("its own files, tuned ones in bf16 and GGUF's MXFP4 give the logits of f32", async () => {
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const tiny = await tinyModel(TINY_CONFIGS['gpt-oss, YaRN with a ramp']);
    const expected = await logitsOf(nativeBackend(), await tiny.gguf(), [IDS], { isa });
    const others = [
      await tiny.huggingFace(),
      await tiny.huggingFace({ fused: true }),
      await tiny.gguf({ experts: 'mxfp4' }),
    ];
    for (const checkpoint of others) {
      expect(nmse(await logitsOf(nativeBackend(), checkpoint, [IDS], { isa }), expected)).toBeLessThan(1e-10);
      await checkpoint.close();
    }
  });
});
