/** What is measured of a card: copies and uploads, over the fake driver, so that the figures mean nothing but are there. */
import { beforeAll, describe, expect, it } from 'vitest';
import { measureGpu } from '../../src/backend/native/gpus.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();

describe.skipIf(reason)(`rates of GPUs ${reason ?? ''}`, () => {
  beforeAll(() => useFakeDriver('gpus=1;memory=64000000'), 300_000);

  it('copies on it, and uploads from both kinds of memory', () => {
    const { copy, pinned, pageable } = measureGpu('cuda:0')!;
    for (const rate of [copy, pinned, pageable]) {
      expect(rate).toBeGreaterThan(1e6);
      expect(Number.isFinite(rate)).toBe(true);
    }
  });

  it('none of a card that is not there, refuses, or fails', () => {
    expect(measureGpu('cuda:7')).toBeUndefined();
    expect(measureGpu('cpu')).toBeUndefined();
    process.env.TANDEM_FAKE_CUDA_FAIL = 'cuMemcpyHtoDAsync_v2:2:1:rates';
    expect(measureGpu('cuda:0')).toBeUndefined();
    delete process.env.TANDEM_FAKE_CUDA_FAIL;
    expect(measureGpu('cuda:0')).toBeDefined();
  });
});
