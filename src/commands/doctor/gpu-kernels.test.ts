import { describe, expect, it } from 'vitest';
import { gpuTrials } from '../../engine/gpu-trials.ts';
import { FORMAT_NAMES } from '../../formats/dtype.ts';
import { KV_TYPES } from '../../program/program.ts';
import { kernelFindings, type TriedGpu } from './gpu-kernels.ts';

const TRIED: TriedGpu = { card: 'cuda:0 RTX 4090', kinds: 210, right: 210, seconds: 21.34, failures: [] };

describe('kernels of GPUs that the doctor tried', () => {
  it('says how many are right, and which are not', () => {
    expect(kernelFindings([TRIED])).toEqual([
      { name: 'GPU kernels', state: 'ok', found: 'cuda:0 RTX 4090: 210 of 210 kinds of steps give what the reference gives, in 21.3 s' }, // biome-ignore format: a sentence
    ]);
    const failures = Array.from({ length: 7 }, (_, i) => `linear ${i}: wrong`);
    const [wrong] = kernelFindings([{ ...TRIED, right: 203, failures }]);
    expect(wrong).toMatchObject({ state: 'problem', found: expect.stringMatching(/203 of 210/) });
    expect(wrong.why).toBe('linear 0: wrong; linear 1: wrong; linear 2: wrong; linear 3: wrong; linear 4: wrong; and 2 more (--json has all)'); // biome-ignore format: a sentence
    expect(kernelFindings([])).toMatchObject([{ state: 'problem', found: expect.stringMatching(/no GPU/) }]);
  });

  it('every weight format and every type of cache is tried', () => {
    const trials = gpuTrials();
    expect(new Set(trials.map(({ format }) => format))).toEqual(new Set(FORMAT_NAMES));
    for (const architecture of new Set(trials.map((trial) => trial.architecture))) {
      const types = trials.filter((trial) => trial.architecture === architecture).map(({ kvType }) => kvType);
      expect(new Set(types), architecture).toEqual(new Set(KV_TYPES));
    }
  });
});
