import { describe, expect, it } from 'vitest';
import { tinyProgram } from '../../../test/conformance/tiny-program.ts';
import { lowerBoth } from '../../placement/phases.ts';
import { parseRules } from '../../placement/rules-file.ts';
import type { Executable, Stepper } from '../backend.ts';
import { referenceBackend } from '../reference.ts';
import { type CheckedKind, checkKinds, refuseFailures } from './check.ts';
import { stepKinds } from './kinds.ts';
import { largeTilesFrom } from './passes.ts';

const LIMITS = { pages: 6, maxRows: 150, maxOutputs: 4 };
const MACHINE = { device: 'cpu', devices: [{ name: 'cpu' }, { name: 'cuda:0' }] } as const;

type Options = Partial<Parameters<typeof tinyProgram>[0]>;

/** A placed Program on the reference: what is judged is the reference itself, unless a test changes what it says. */
async function prepared(options: Options = {}, limits = LIMITS, multiprocessors?: number) {
  const made = tinyProgram({ seed: 5, format: 'q8_0', kvType: 'bf16', ...options });
  const program = lowerBoth(made.program, MACHINE, { rules: parseRules([{ place: { device: 'cuda:0' } }]) });
  const executable = await referenceBackend().prepare(program, made.checkpoint, limits);
  const run = (changed: Executable = executable, stopAtFailure = false, op = ''): Promise<CheckedKind[]> => {
    const kinds = stepKinds(program).filter(({ label }) => label.startsWith(op));
    return checkKinds({
      executable: changed,
      checkpoint: made.checkpoint,
      limits,
      kinds,
      multiprocessors,
      stopAtFailure,
    });
  };
  return { program, executable, run };
}

/** The same, with what `read` says of outputs changed. */
function lying(
  executable: Executable,
  change: (value: number, data: Float32Array | Int32Array) => void,
  step: (index: number) => Promise<void> = async () => {},
): Executable {
  return {
    ...executable,
    program: executable.program,
    pages: executable.pages,
    async start(batch): Promise<Stepper> {
      const stepper = await executable.start(batch);
      return {
        ...stepper,
        step: async (index) => {
          await step(index);
          await stepper.step(index);
        },
        read: async (value) => {
          const data = await stepper.read(value);
          change(value, data);
          return data;
        },
      };
    },
  };
}

const failures = (results: readonly CheckedKind[]) =>
  results.flatMap(({ kind, failure }) => (failure === undefined ? [] : [`${kind.label}: ${failure}`]));

describe('self-check of kinds of steps', () => {
  it.each<[string, Options]>([
    ['q4_k, latent attention together', { format: 'q4_k' }],
    [
      'f8 with scales apart, latent attention split',
      { format: 'f8_e4m3', layers: [['mla-split', 'experts']], kvType: 'e4m3' },
    ],
    ['int4, experts in tensors of their own', { format: 'int4_g32', split: true, kvType: 'f32', score: 'softmax' }],
    [
      'two layers alike',
      {
        format: 'q8_0',
        layers: [
          ['gqa', 'dense'],
          ['gqa', 'dense'],
        ],
      },
    ],
  ])('the reference is right: %s', async (_, options) => {
    const { run, program } = await prepared(options);
    const results = await run();
    expect(failures(results)).toEqual([]);
    expect(results.map(({ kind }) => kind)).toEqual(stepKinds(program));
    for (const { passes } of results) expect(passes).toBe(4);
    expect(() => refuseFailures(results, 'a card')).not.toThrow();
  });

  it('kinds are told apart by formats, sizes and views, and not by layers', () => {
    const { program } = tinyProgram({
      seed: 1,
      layers: [
        ['gqa', 'dense'],
        ['gqa', 'dense'],
      ],
    });
    const on = (device: string) => lowerBoth(program, MACHINE, { rules: parseRules([{ place: { device } }]) });
    const kinds = stepKinds(on('cuda:0'));
    expect(new Set(kinds.map(({ key }) => key)).size).toBe(kinds.length);
    expect(kinds.find(({ label }) => label.startsWith('attention'))?.steps).toBe(2);
    expect(stepKinds(on('cpu'))).toEqual([]);
  });

  it('one wrong number of one step is found and named, whatever the op', async () => {
    const { program, executable, run } = await prepared();
    for (const op of [
      'embed',
      'rms-norm',
      'linear',
      'rope',
      'attention',
      'mla',
      'router',
      'experts',
      'glu',
      'add',
      'gather-rows',
      'sample',
    ]) {
      const index = program.steps.findIndex((step) => step.op === op);
      const wrong = program.steps[index].outputs[0];
      const results = await run(
        lying(executable, (value, data) => {
          if (value === wrong) data[data.length - 1] += data instanceof Int32Array ? 1 : 0.25;
        }),
        false,
        op === 'glu' ? '' : `${op} `, // once among all others
      );
      expect(failures(results), op).toHaveLength(1);
      expect(failures(results)[0]).toMatch(new RegExp(`^${op} .* on cuda:0: 1 row: .* is .*, not `));
      expect(() => refuseFailures(results, 'cuda:0 Card')).toThrow(
        /^\[backend\] kernels of a GPU compute what the reference does, or it is not used; cuda:0 Card: .*--rules cpu/,
      );
    }
  });

  it('what only large tiles get wrong is found: in a pass of as many rows as give each multiprocessor one', async () => {
    const limits = { ...LIMITS, maxRows: 300 };
    const of = (multiprocessors: number) =>
      prepared({ format: 'q4_k', layers: [['gqa', 'dense']] }, limits, multiprocessors);
    const { program, executable, run } = await of(3);
    const index = program.steps.findIndex((step) => (largeTilesFrom(step, program, 3) ?? 0) > 0);
    const { outputs, name } = program.steps[index];
    const { columns } = program.values[outputs[0]];
    expect([3, 2, 1].map((count) => largeTilesFrom(program.steps[index], program, count))).toEqual([257, 129, 128]);
    const passes: Record<number, Set<string>> = {};
    let at = 0;
    const wrong = (value: number, data: Float32Array | Int32Array) => {
      const rows = data.length / program.values[value].columns;
      (passes[rows] ??= new Set()).add(program.steps[at].op);
      if (value === outputs[0] && data.length > 140 * columns) data[data.length - 1] = Number.NaN;
    };
    const liar = lying(executable, wrong, async (step) => void (at = step));
    expect(failures(await run(liar))).toEqual([expect.stringMatching(/^linear .*: 257 rows: .* is NaN, not /)]);
    expect([...passes[257]], name).toEqual(['linear']);
    expect(failures(await (await of(1)).run(liar))).toEqual([]); // the pass that takes tiles takes large ones
  });

  it('what only tiles get wrong is found, and the first failure ends the check where that is wished', async () => {
    const { program, executable, run } = await prepared();
    const index = program.steps.findIndex(({ op }) => op === 'linear');
    const [wrong] = program.steps[index].outputs;
    const { columns } = program.values[wrong];
    const liar = lying(executable, (value, data) => {
      if (value === wrong && data.length > 100 * columns) data[0] = Number.NaN;
    });
    expect(failures(await run(liar))).toEqual([expect.stringMatching(/^linear .*: 137 rows: .* is NaN, not /)]);
    const stopped = await run(liar, true);
    expect(failures(stopped)).toHaveLength(1);
    expect(stopped[0].passes).toBe(4);
  });

  it('a number that nobody wrote is found where no element is compared', async () => {
    const { program, executable, run } = await prepared();
    const [wrong] = program.steps.find(({ op }) => op === 'linear')!.outputs;
    const { columns } = program.values[wrong];
    const results = await run(
      lying(executable, (value, data) => {
        if (value === wrong && data.length === 137 * columns) data[5 * columns + 3] = Number.NaN;
      }),
    );
    expect(failures(results)).toEqual([
      expect.stringMatching(/137 rows: .* \[5, 3\] was not written, or is no number/),
    ]);
  });

  it('an error of the device is told in its own words', async () => {
    const { program, executable, run } = await prepared();
    const index = program.steps.findIndex(({ op }) => op === 'rope');
    const broken = lying(
      executable,
      () => {},
      async (step) => {
        if (step === index) throw new Error('[native] cuda:0 goes on answering; it was lost');
      },
    );
    expect(failures(await run(broken))).toEqual([
      expect.stringMatching(/^rope .*: 1 row: cuda:0 goes on answering; it was lost/),
    ]);
  });

  it('a device that is lost for good leaves what broke it, and what was right before', async () => {
    const { program, executable, run } = await prepared();
    const index = program.steps.findIndex(({ op }) => op === 'glu');
    let lost = false;
    const broken = lying(executable, () => {}, async (step) => {
      lost ||= step === index;
      if (lost) throw new Error('[native] it was lost');
    }); // biome-ignore format: a device
    const dying: Executable = {
      ...broken,
      start: (batch) => (lost ? Promise.reject(new Error('[native] it was lost')) : broken.start(batch)),
    };
    const results = await run(dying);
    expect(failures(results)).toContainEqual(expect.stringMatching(/^glu .*: 1 row: it was lost/));
    expect(results.find(({ kind }) => kind.label.startsWith('embed'))).toMatchObject({ passes: 1 });
    expect(failures(await run(dying))).toEqual([expect.stringMatching(/^embed .*: history: it was lost/)]);
  });

  it('bytes of the cache are held against what was appended', async () => {
    const { executable, run, program } = await prepared({ layers: [['gqa', 'dense']], kvType: 'f32' });
    let spoilt = true;
    const paged: Executable = {
      ...lying(executable, () => {}),
      async readPage(page) {
        const stepper = await executable.start({
          tokens: new Int32Array(1),
          sequences: [{ slot: 0, firstRow: 0, rows: 1, firstPosition: 0, pages: Int32Array.of(0) }],
          outputs: [],
          wantLogits: false,
        });
        const data = await stepper.readPage!(page);
        await stepper.finish();
        if (spoilt) data[70] += 1;
        return new Uint8Array(data.buffer);
      },
    };
    expect(failures(await run(paged))).toEqual([
      expect.stringMatching(/^kv-append .*position \d+ of page \d, head 0, element \d+ is/),
    ]);
    spoilt = false;
    expect(failures(await run(paged))).toEqual([]);
    expect(stepKinds(program).some(({ label }) => label.startsWith('kv-append'))).toBe(true);
  });

  it('goes as far as few rows and pages let it', async () => {
    const { run } = await prepared({}, { pages: 1, maxRows: 2, maxOutputs: 1 });
    const results = await run();
    expect(failures(results)).toEqual([]);
    for (const { passes } of results) expect(passes).toBe(2);
  });
});
