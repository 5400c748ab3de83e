import { describe, expect, it } from 'vitest';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { nativeBackend } from './native/backend.ts';
import { nativeProblem } from './native/load.ts';
import { nullBackend } from './null.ts';
import { referenceBackend } from './reference.ts';

const { program, checkpoint } = tinyProgram({ seed: 1 });
const LIMITS = { pages: 8, maxRows: 128, maxOutputs: 4 };
const batch = batchOf([{ tokens: [1, 2, 3], pages: [0], outputs: 'last' }]);
const BACKENDS = { reference: () => referenceBackend(), null: () => nullBackend(), native: () => nativeBackend() };

for (const [name, backend] of Object.entries(BACKENDS)) {
  describe.skipIf(name === 'native' && nativeProblem())(`turns on ${name}`, () => {
    const prepare = () => backend().prepare(program, checkpoint, LIMITS);
    const disposed = { code: 'DISPOSED' };

    it('dispose ends an open Stepper and whoever waits behind it', async () => {
      const executable = await prepare();
      const stepper = await executable.start(batch);
      await stepper.step(0);
      const waiting = expect(executable.run(batch)).rejects.toMatchObject(disposed);
      await executable.dispose();
      await waiting;
      await expect(stepper.step(1)).rejects.toMatchObject(disposed);
      await expect(stepper.finish()).rejects.toMatchObject(disposed);
    });

    it('dispose waits for the call of a Stepper that is under way', async () => {
      const executable = await prepare();
      const stepper = await executable.start(batch);
      let ended = false;
      const step = stepper.step(0).then(() => {
        ended = true;
      });
      await executable.dispose();
      expect(ended).toBe(true);
      await step;
    });

    it('a finished Stepper makes room for the next pass', async () => {
      await using executable = await prepare();
      const stepper = await executable.start(batch);
      const next = executable.run(batch);
      for (let index = 0; index < program.steps.length; index++) await stepper.step(index);
      const { tokens } = await stepper.finish();
      expect((await next).tokens).toEqual(tokens);
    });
  });
}
