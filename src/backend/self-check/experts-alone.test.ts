import { describe, expect, it } from 'vitest';
import { type TinyOptions, tinyProgram } from '../../../test/conformance/tiny-program.ts';
import { lowerBoth } from '../../placement/phases.ts';
import { parseRules } from '../../placement/rules-file.ts';
import { referenceBackend } from '../reference.ts';
import { ReferenceWeights } from '../reference-weights.ts';
import { checkKinds } from './check.ts';
import { expertsAlone } from './experts-alone.ts';
import { stepKinds } from './kinds.ts';

const LIMITS = { pages: 1, maxRows: 16, maxOutputs: 1 };
const MACHINE = { device: 'cpu', devices: [{ name: 'cpu' }, { name: 'cuda:0' }] } as const;

describe('experts alone', () => {
  it.each<TinyOptions>([
    { seed: 1, format: 'q8_0' },
    { seed: 2, format: 'int4_g32', split: true },
    { seed: 3, format: 'mxfp4_g32' },
    { seed: 4, format: 'f8_e4m3', split: true },
  ])('$format: a Program that runs, with the experts of the other', async (options) => {
    const { program, checkpoint } = tinyProgram(options);
    const step = program.steps.find(({ op }) => op === 'experts')!;
    const alone = await expertsAlone(program, step, checkpoint);
    const placed = lowerBoth(alone.program, MACHINE, { rules: parseRules([{ place: { device: 'cuda:0' } }]) });
    const executable = await referenceBackend().prepare(placed, alone.checkpoint, LIMITS);
    const kinds = stepKinds(placed).filter(({ label }) => label.startsWith('experts '));
    const results = await checkKinds({ executable, checkpoint: alone.checkpoint, limits: LIMITS, kinds });
    expect(results).toEqual([{ kind: kinds[0], passes: 3 }]);

    const [theirs, ours] = [new ReferenceWeights(program, checkpoint, 1e8), new ReferenceWeights(alone.program, alone.checkpoint, 1e8)]; // biome-ignore format: a pair
    const own = alone.program.steps.find(({ op }) => op === 'experts')!;
    for (const operand of [3, 4, 5]) {
      const [from, to] = [step.inputs[operand], own.inputs[operand]];
      if (from?.kind !== 'weight' || to?.kind !== 'weight') throw new Error('experts have weights');
      await Promise.all([theirs.load([from.weight]), ours.load([to.weight])]);
      const [expected, actual] = [theirs.reader(from.weight), ours.reader(to.weight)];
      expect(actual.shape).toEqual(expected.shape); // four experts, all of them
      for (const row of [0, expected.rows - 1]) expect([...actual.row(row)]).toEqual([...expected.row(row)]);
    }
  });
});
