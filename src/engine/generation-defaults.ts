/** How a model wants to be sampled, by its generation_config.json or GGUF's `general.sampling.*`. */
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { SamplingDefaults } from './sampling.ts';

/**
 * Hugging Face: greedy unless `do_sample`, as transformers does. Values that are no numbers are left out; ranges are
 * checked where they are used.
 */
export function samplingDefaults({ kind, metadata, generationConfig = {} }: Checkpoint): SamplingDefaults {
  const number = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : undefined);
  if (kind === 'gguf') {
    const read = (key: string) => number(metadata.get(`general.sampling.${key}`));
    return {
      temperature: read('temp'),
      topK: off(read('top_k')),
      topP: read('top_p'),
      minP: read('min_p'),
      repetitionPenalty: read('penalty_repeat'),
    };
  }
  const read = (key: string) => number(generationConfig[key]);
  const repetitionPenalty = read('repetition_penalty');
  if (generationConfig.do_sample !== true) return { temperature: 0, repetitionPenalty };
  return {
    temperature: read('temperature') ?? 1,
    topK: off(read('top_k')),
    topP: read('top_p'),
    minP: read('min_p'),
    repetitionPenalty,
  };
}

/** Files say −1 for "all tokens". */
function off(topK: number | undefined): number | undefined {
  return topK === undefined ? undefined : Math.max(0, topK);
}
