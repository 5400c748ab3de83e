import { describe, expect, it } from 'vitest';
import { tinyProgram } from '../../../test/conformance/tiny-program.ts';
import type { Executable } from '../backend.ts';
import { referenceBackend } from '../reference.ts';
import { wholePassFailure } from './whole-pass.ts';

const LIMITS = { pages: 2, maxRows: 4, maxOutputs: 4 };

/** The reference, with another way to run whole passes. */
async function executable(run?: (of: Executable) => Executable['run']): Promise<Executable> {
  const { program, checkpoint } = tinyProgram({ seed: 9 });
  const made = await referenceBackend().prepare(program, checkpoint, LIMITS);
  if (run === undefined) return made;
  return { ...made, program, pages: made.pages, start: (batch) => made.start(batch), cancel: (slot) => made.cancel(slot), run: run(made) }; // biome-ignore format: one line
}

describe('self-check of a whole pass', () => {
  it('a pass and its steps one by one give the same, in little room, too', async () => {
    expect(await wholePassFailure({ executable: await executable(), limits: LIMITS })).toBeUndefined();
    const one = { maxRows: 2, maxOutputs: 1 };
    expect(await wholePassFailure({ executable: await executable(), limits: one })).toBeUndefined();
  });

  it('a pass that is right only once is found', async () => {
    let passes = 0;
    const wrong = await executable((of) => async (batch) => {
      const result = await of.run(batch);
      if (++passes === 2) result.logits![3] += 100;
      return result;
    });
    expect(await wholePassFailure({ executable: wrong, limits: LIMITS })).toMatch(
      /^the same pass again ends in other logits than its steps one by one, NMSE /,
    );
    const none = await executable((of) => async (batch) => {
      const result = await of.run(batch);
      return { ...result, logits: result.logits!.fill(Number.NaN) };
    });
    expect(await wholePassFailure({ executable: none, limits: LIMITS })).toMatch(/^a pass ends in other logits/);
  });

  it('a pass that does not end is given up', async () => {
    const cancelled: number[] = [];
    let end = () => {};
    const stuck = await executable((of) => async (batch) => {
      await new Promise<void>((resolve) => {
        end = resolve;
      });
      return of.run(batch);
    });
    const watched: Executable = {
      ...stuck,
      cancel(slot) {
        cancelled.push(slot);
        end();
      },
    };
    expect(await wholePassFailure({ executable: watched, limits: LIMITS, seconds: 0.02 })).toMatch(
      /^a pass did not end within \d\.\d s$/,
    );
    expect(cancelled).toEqual([0, 1]);
  });

  it('an error is told in its own words, an abort is none', async () => {
    const broken = await executable(() => async () => {
      throw new Error('[native] cuda:0 was lost');
    });
    expect(await wholePassFailure({ executable: broken, limits: LIMITS })).toBe('cuda:0 was lost');
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(wholePassFailure({ executable: await executable(), limits: LIMITS, signal })).rejects.toThrow(
      'enough',
    );
  });
});
