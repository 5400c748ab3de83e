/** A GPU that cannot be used: without rules the CPU computes and says why, rules that ask for it are an error. */
import { beforeAll, describe, expect, it } from 'vitest';
import { load } from '../../src/index.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();

describe.skipIf(reason)(`a GPU that is refused ${reason ?? ''}`, () => {
  beforeAll(() => useFakeDriver('capability=7.5'), 300_000);

  it('is not used, and that is told', async () => {
    await using engine = await load(undefined, { contextLength: 64 });
    expect(engine.info.execution.gpus).toBeUndefined();
    expect(engine.info.warnings).toEqual([expect.stringMatching(/^cuda:0 is not used: compute capability 7\.5/)]);
  });

  it('is an error where rules ask for it', async () => {
    await expect(load(undefined, { contextLength: 64, rules: 'one-gpu' })).rejects.toMatchObject({
      code: 'PLACEMENT_IMPOSSIBLE',
      message: expect.stringMatching(/cuda:0 can be used: compute capability 7\.5.*; one-gpu\.yaml:\d+ places /),
    });
  });
});
