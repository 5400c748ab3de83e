/** `verify` finds what it is there to find: a backend that is right passes, one that is wrong in one way is told so. */
import { describe, expect, it } from 'vitest';
import type { Backend, Executable, Stepper } from '../../src/backend/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { pathsOf, type VerifyPath } from '../../src/engine/verify/paths.ts';
import { type VerifyResult, verify } from '../../src/engine/verify/verify.ts';
import { OPS } from '../../src/ops/index.ts';
import { registerKernel } from '../../src/ops/kernel.ts';
import { parseRules } from '../../src/placement/rules-file.ts';
import type { Batch, PassResult } from '../../src/program/batch.ts';
import { TINY_VOCABULARY, tinyProgram } from '../conformance/tiny-program.ts';

const { program, checkpoint } = tinyProgram({ seed: 4, fast: true, format: 'q8_0' });
const IDS = Array.from({ length: 70 }, (_, i) => (i * 7 + 3) % TINY_VOCABULARY);
const PATHS: VerifyPath[] = [
  { name: 'whole', isa: 'scalar', exact: true, load: 'mmap', shape: { kind: 'chunks', size: 1e9 } },
  { name: 'chunks', isa: 'scalar', exact: true, load: 'mmap', shape: { kind: 'chunks', size: 9 }, sameBitsAs: 'whole' },
  { name: 'company', isa: 'scalar', exact: true, load: 'mmap', shape: { kind: 'company' }, sameBitsAs: 'whole' },
  { name: 'shared', isa: 'scalar', exact: true, load: 'mmap', shape: { kind: 'shared' }, sameBitsAs: 'whole' },
];

/** A reference that `run` or `start` can be bent of. */
function backend(bend: (executable: Executable) => Partial<Executable> = () => ({})): Backend {
  const honest = referenceBackend();
  return {
    name: 'bent',
    async prepare(...given) {
      const executable = await honest.prepare(...given);
      const face: Executable = {
        program: executable.program,
        pages: executable.pages,
        description: executable.description,
        run: (batch) => executable.run(batch),
        start: (batch) => executable.start(batch),
        cancel: (slot) => executable.cancel(slot),
        dispose: () => executable.dispose(),
        [Symbol.asyncDispose]: () => executable.dispose(),
      };
      return Object.assign(face, bend(executable));
    },
  };
}

async function results(judged: Backend): Promise<VerifyResult[]> {
  const all: VerifyResult[] = [];
  for await (const result of verify({ program, checkpoint, ids: IDS, paths: PATHS, backend: judged })) all.push(result);
  return all;
}

describe('verify', () => {
  it('passes a backend that is right', async () => {
    const all = await results(backend());
    expect(all.map(({ breach }) => breach)).toEqual([undefined, undefined, undefined, undefined]);
    expect(all.map(({ sameBits }) => sameBits)).toEqual([undefined, true, true, true]);
    expect(all[0]).toMatchObject({ nmse: 0, worstKl: 0, sameTop: 1 });
    expect(all[0].worstStep?.failed).toBe(false);
  });

  it('holds rules to the reference; what they change between phases is no breach of bits', async () => {
    const [rule] = parseRules([{ match: { op: 'linear' }, decode: { activation: 'f32' } }]);
    const paths = PATHS.map((path) => (path.name === 'chunks' ? { ...path, shape: { kind: 'chunks', size: 1 } as const } : path)); // biome-ignore format: one thought a line
    const all: VerifyResult[] = [];
    for await (const result of verify({ program, checkpoint, ids: IDS, paths, rules: [rule], backend: backend() }))
      all.push(result);
    expect(all.map(({ breach }) => breach)).toEqual([undefined, undefined, undefined, undefined]);
    // Each way against a reference that computes as the rule says: the same bits, of one row too.
    expect(all.map(({ nmse }) => nmse)).toEqual([0, 0, 0, 0]);
    expect(all.every(({ sameBits }) => sameBits === undefined)).toBe(true);
  });

  it('holds a kernel that a program registered to the definition, not to itself', async () => {
    const glu = OPS.get('glu')!;
    const register = (name: string, factor: number) =>
      registerKernel({
        name,
        op: 'glu',
        run(context) {
          glu.reference(context);
          const { data } = context.output(0);
          for (let i = 0; i < data.length; i++) data[i] *= factor;
        },
      });
    const forget = [register('right-glu', 1), register('wrong-glu', 1.01)];
    const breaches: (string | undefined)[] = [];
    for (const kernel of ['right-glu', 'wrong-glu']) {
      const rules = parseRules([{ match: { op: 'glu' }, place: { kernel }, decode: { kernel } }]);
      const judged = { program, checkpoint, ids: IDS, paths: PATHS.slice(0, 1), rules, backend: backend() };
      for await (const { breach } of verify(judged)) breaches.push(breach);
    }
    for (const each of forget) each();
    expect(breaches).toEqual([undefined, expect.stringMatching(/leaves its bound/)]);
  });

  it('names the step that is wrong', async () => {
    const linear = program.steps.findIndex(({ op }) => op === 'linear');
    const wrong = backend((executable) => ({
      async start(batch: Batch): Promise<Stepper> {
        const stepper = await executable.start(batch);
        return {
          ...bound(stepper),
          async step(index: number) {
            await stepper.step(index);
            if (index !== linear) return;
            const [value] = program.steps[index].outputs;
            const data = await stepper.read(value);
            data[0] += 0.01;
            await stepper.write(value, data);
          },
        };
      },
    }));
    const [whole] = await results(wrong);
    expect(whole.breach).toBe(`${program.steps[linear].name} leaves its bound`);
  });

  it('sees logits that go elsewhere than their steps', async () => {
    const [whole] = await results(backend((executable) => ({ run: (batch) => scaled(executable, batch) })));
    expect(whole.breach).toMatch(/logits drift by .* more than/);
    expect(whole.worstKl).toBeGreaterThan(0);
  });

  it('sees that company changes bits', async () => {
    const all = await results(
      backend((executable) => ({
        run: async (batch) => {
          const result = await executable.run(batch);
          if (batch.sequences.length > 1) result.logits![3] = nextUp(result.logits![3]);
          return result;
        },
      })),
    );
    const breaches = all.filter(({ breach }) => breach).map(({ path, breach }) => `${path.name}: ${breach}`);
    expect(breaches).toEqual(['company: other bits than whole']);
  });
});

it('lists every instruction set, and the shapes of the best', () => {
  const machine = { isas: ['scalar', 'avx2', 'avx512'], isa: 'avx512', defaultThreads: 2 } as const;
  const paths = pathsOf(machine as unknown as Parameters<typeof pathsOf>[0], (isa) => isa === 'avx512');
  expect(new Set(paths.map(({ name }) => name)).size).toBe(paths.length);
  expect(paths.filter(({ exact }) => !exact).map(({ isa }) => isa)).toEqual(['avx512', 'avx512', 'avx512', 'avx512']);
  for (const { sameBitsAs } of paths) if (sameBitsAs) expect(paths.some(({ name }) => name === sameBitsAs)).toBe(true);
  expect(paths.map(({ name }) => name)).toEqual(expect.arrayContaining(['scalar', 'avx2', 'avx512, 1 thread']));
});

function bound(stepper: Stepper): Stepper {
  return {
    step: (index) => stepper.step(index),
    read: (value) => stepper.read(value),
    write: (value, data) => stepper.write(value, data),
    finish: () => stepper.finish(),
  };
}

async function scaled(executable: Executable, batch: Batch): Promise<PassResult> {
  const result = await executable.run(batch);
  return { ...result, logits: result.logits!.map((logit) => logit * 1.1) };
}

/** The next f32 above a finite positive, or below a negative one. */
function nextUp(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0]++;
  return new Float32Array(bits.buffer)[0];
}
