/** The same weights give the same logits from every container and layout. */
import { describe, expect, test } from 'vitest';
import { referenceBackend } from '../../src/backend/reference.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { type GgufLayout, tinyModel } from './make-tiny.ts';
import { logitsOf, nmse } from './run.ts';
import { TINY_CONFIGS } from './tiny-configs.ts';

/** Long enough that positions, scalings and routing matter. */
const IDS = Array.from({ length: 70 }, (_, i) => (i * 37 + 11) % 272);
/** Metadata keys of GGUF are f32, and llama's rotated columns are summed in another order. */
const SAME = 1e-10;

describe.each(Object.entries(TINY_CONFIGS))('%s', (_, config) => {
  const layouts: GgufLayout[] = [{}];
  if (config.model_type === 'gpt_oss') layouts.push({ experts: 'mxfp4' });
  else if ('num_experts' in config || 'num_local_experts' in config || config.n_routed_experts)
    layouts.push({ experts: 'each' }, { experts: 'gate-up' });
  if ('kv_lora_rank' in config) layouts.push({ kvB: 'split' });
  if (config.n_routed_experts === 256) layouts.push({ groupKeys: false });

  test('GGUF layouts and Hugging Face agree', async () => {
    const tiny = await tinyModel(config);
    const logits = async (checkpoint: Checkpoint) => {
      const result = await logitsOf(referenceBackend(), checkpoint, [IDS]);
      await checkpoint.close();
      return result;
    };
    const expected = await logits(await tiny.huggingFace());
    expect(expected.every(Number.isFinite)).toBe(true);
    expect(new Set(expected).size).toBeGreaterThan(expected.length / 2);
    if (config.model_type === 'gpt_oss' || layouts.some(({ experts }) => experts === 'gate-up'))
      expect(await logits(await tiny.huggingFace({ fused: true })), 'fused').toEqual(expected);
    for (const layout of layouts) {
      const error = nmse(await logits(await tiny.gguf(layout)), expected);
      expect(error, JSON.stringify(layout)).toBeLessThan(SAME);
    }
  });
});
