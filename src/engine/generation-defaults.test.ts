import { expect, test } from 'vitest';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { samplingDefaults } from './generation-defaults.ts';

const huggingface = (generationConfig?: Record<string, unknown>) =>
  samplingDefaults({ kind: 'huggingface', metadata: new Map(), generationConfig } as unknown as Checkpoint);
const gguf = (metadata: Record<string, unknown>) =>
  samplingDefaults({ kind: 'gguf', metadata: new Map(Object.entries(metadata)) } as unknown as Checkpoint);

test('Hugging Face: greedy unless do_sample, whatever else is there', () => {
  expect(huggingface()).toEqual({ temperature: 0, repetitionPenalty: undefined });
  expect(huggingface({ temperature: 0.6, top_p: 0.95 })).toEqual({ temperature: 0, repetitionPenalty: undefined });
  expect(huggingface({ do_sample: true })).toMatchObject({ temperature: 1 });
  expect(
    huggingface({ do_sample: true, temperature: 0.6, top_p: 0.95, top_k: 20, repetition_penalty: 1.05 }),
  ).toMatchObject({
    temperature: 0.6,
    topP: 0.95,
    topK: 20,
    repetitionPenalty: 1.05,
  });
});

test('values that are no numbers are left out', () => {
  expect(huggingface({ do_sample: true, temperature: null, top_p: 'high' })).toMatchObject({
    temperature: 1,
    topP: undefined,
  });
});

test('GGUF: general.sampling.*, top_k −1 is off', () => {
  expect(gguf({})).toEqual({});
  expect(
    gguf({ 'general.sampling.temp': 1, 'general.sampling.top_k': -1, 'general.sampling.top_p': 0.9 }),
  ).toMatchObject({
    temperature: 1,
    topK: 0,
    topP: 0.9,
  });
});
