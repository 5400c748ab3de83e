/**
 * GPUs are checked before they are believed: right kernels pass, wrong ones, lost cards and kernels that hang end in words, and the
 * CPU takes over where nobody asked for a GPU. Over the fake driver and emulated kernels.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { type CheckedKind, checkKinds } from '../../src/backend/self-check/check.ts';
import { stepKinds } from '../../src/backend/self-check/kinds.ts';
import { wholePassFailure } from '../../src/backend/self-check/whole-pass.ts';
import { tryKernels } from '../../src/commands/doctor/gpu-kernels.ts';
import { gpuTrials } from '../../src/engine/gpu-trials.ts';
import { checksPath, readChecks } from '../../src/engine/kept-checks.ts';
import { type LoadOptions, load } from '../../src/index.ts';
import { lowerBoth } from '../../src/placement/phases.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { type TinyOptions, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const LIMITS = { pages: 6, maxRows: 140, maxOutputs: 4, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const reason = fakeDriverProblem();
const OPTIONS: LoadOptions = { contextLength: 64, maxBatchRows: 16, threads: 2 };
const ON_GPU: RuleDescription = { place: { device: 'cuda:0' } };

async function prepared(options: Partial<TinyOptions>, rules: readonly RuleDescription[] = [ON_GPU]) {
  const { program, checkpoint } = tinyProgram({ seed: 4, ...options });
  const placed = lowerBoth(program, MACHINE, { rules: parseRules(rules) });
  const executable = await nativeBackend().prepare(placed, checkpoint, LIMITS);
  const check = () =>
    checkKinds({ executable, checkpoint, limits: LIMITS, kinds: stepKinds(placed), stopAtFailure: false });
  return { placed, executable, check };
}

const failures = (results: readonly CheckedKind[]) =>
  results.flatMap(({ kind, failure }) => (failure === undefined ? [] : [`${kind.label}: ${failure}`]));

/** What emulated kernels are spoilt by (native/cuda/fake/fake.h). */
function spoil(fault: string | undefined): void {
  if (fault === undefined) delete process.env.TANDEM_FAKE_CUDA_KERNEL;
  else process.env.TANDEM_FAKE_CUDA_KERNEL = fault;
}

describe.skipIf(reason)(`GPUs that are checked ${reason ?? ''}`, () => {
  const before = { ...process.env };
  const folder = mkdtempSync(join(tmpdir(), 'tandem-check-'));
  beforeAll(async () => {
    await useFakeDriver('gpus=2;memory=4000000000');
    process.env.XDG_CACHE_HOME = folder;
  }, 300_000);
  beforeEach(() => spoil(undefined));
  afterAll(() => {
    for (const name of ['XDG_CACHE_HOME', 'TANDEM_CUDA_CHECK', 'TANDEM_CUDA_LIMIT', 'TANDEM_FAKE_CUDA_KERNEL'])
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    rmSync(folder, { recursive: true, force: true });
  });

  it.each<[string, Partial<TinyOptions>, RuleDescription[]]>([
    ['all of a layer', { format: 'q8_0', kvType: 'bf16' }, [ON_GPU]],
    [
      'experts on the CPU, split latents',
      { format: 'q4_k', kvType: 'e4m3', layers: [['mla-split', 'experts']] },
      [{ match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } }, ON_GPU],
    ],
    ['two GPUs', { format: 'bf16', kvType: 'f32' }, [{ place: { device: 'cuda:{layer * gpus / layers}' } }]],
  ])('%s: every kind is right in every pass, and a pass as a graph', async (_, options, rules) => {
    const { placed, executable, check } = await prepared(options, rules);
    try {
      const results = await check();
      expect(failures(results)).toEqual([]);
      expect(results).toHaveLength(stepKinds(placed).length);
      for (const { passes } of results) expect(passes).toBe(4);
      expect(await wholePassFailure({ executable, limits: LIMITS })).toBeUndefined();
    } finally {
      await executable.dispose();
    }
  });

  it('a kernel that does half of its work is found, by the steps that use it and no others', async () => {
    const { executable, check } = await prepared({ layers: [['gqa', 'dense']] });
    try {
      for (const [kernel, label] of [
        ['tandem_rms_norm', 'rms-norm'],
        ['tandem_glu', 'glu'],
        ['tandem_cache_append_f32', '(kv-append|attention)'],
      ]) {
        spoil(`${kernel}:part`);
        const found = failures(await check());
        expect(found.length, kernel).toBeGreaterThan(0);
        for (const failure of found) expect(failure).toMatch(new RegExp(`^${label} `));
      }
    } finally {
      await executable.dispose();
    }
  });

  it('what the doctor tries: small random models of every architecture', async () => {
    const trials = gpuTrials().filter(({ name }) => name === 'grouped attention, q8_0, cache bf16');
    const card = { device: 'cuda:1', name: 'Fake' };
    const right = await tryKernels(card, () => {}, trials);
    expect(right).toMatchObject({ card: 'cuda:1 Fake', failures: [] });
    expect(right.right).toBe(right.kinds);
    expect(right.kinds).toBeGreaterThan(10);
    spoil('tandem_rope:part');
    const wrong = await tryKernels(card, () => {}, trials);
    expect(wrong.right).toBeLessThan(wrong.kinds);
    for (const failure of wrong.failures) expect(failure).toMatch(/^rope .* on cuda:1: /);
  });

  describe('when a model is loaded', () => {
    beforeEach(() => {
      process.env.TANDEM_CUDA_CHECK = '1';
    });

    const messages = [{ role: 'user', content: 'What is 9 + 0?' }] as const;

    it('once: what was right is known afterwards, until the file is damaged', async () => {
      const gpuCheck = async () => {
        await using engine = await load(undefined, { ...OPTIONS, rules: 'one-gpu' });
        expect(engine.info.warnings).toEqual([expect.stringMatching(/^GPU kernels are new: this card gave/)]);
        return String(engine.info.execution['gpu check']);
      };
      expect(await gpuCheck()).toMatch(/^(\d+) of \1 kinds of steps in \d+ ms$/);
      expect(await gpuCheck()).toMatch(/^(\d+) of \1 kinds of steps, before$/);
      const kept = JSON.parse(readFileSync(checksPath(), 'utf8'));
      expect(Object.values(kept)).toEqual([expect.objectContaining({ name: 'cuda:0 Fake' })]);
      writeFileSync(checksPath(), '{"a": 3');
      expect(await gpuCheck()).toMatch(/ in \d+ ms$/);
      process.env.TANDEM_CUDA_CHECK = '0';
      await using unchecked = await load(undefined, { ...OPTIONS, rules: 'one-gpu' });
      expect(unchecked.info.execution['gpu check']).toBeUndefined();
      expect(unchecked.info.warnings).toEqual([expect.stringMatching(/have not run on a card yet/)]);
    }, 60_000);

    it('a wrong kernel: the CPU takes over where nobody asked for a GPU, else it is an error that names the step', async () => {
      spoil('tandem_rope:part');
      rmSync(checksPath(), { force: true });
      await using engine = await load(undefined, OPTIONS);
      expect(engine.info.execution.gpus).toBeUndefined();
      expect(engine.info.warnings).toEqual([
        expect.stringMatching(
          /^the CPU computes everything, since a GPU could not: kernels of a GPU compute what the reference does, or it is not used; cuda:0 Fake.*: rope .* on cuda:0: .* is .*, not .*--rules cpu/,
        ),
      ]);
      expect((await engine.chat(messages)).text).toBe('9 + 0 = 9');
      await expect(load(undefined, { ...OPTIONS, rules: 'one-gpu' })).rejects.toMatchObject({ code: 'NATIVE_FAILED' });
      // What was not right is not kept; the experts that the card would have held were.
      expect(Object.values(await readChecks()).flatMap(({ right }) => right)).toHaveLength(1);
    }, 60_000);

    it('experts that a GPU would hold are checked, too; where they are wrong the processor computes all of them', async () => {
      rmSync(checksPath(), { force: true });
      spoil('tandem_gated:part'); // of experts alone
      await using engine = await load(undefined, { ...OPTIONS, rules: 'one-gpu' });
      expect(engine.info.warnings).toContainEqual(
        expect.stringMatching(
          /^GPUs hold no experts, since one computes them otherwise than the reference: .*experts on cuda:0 Fake: 1 row: /,
        ),
      );
      expect(engine.info.execution['hot experts']).toBeUndefined();
      expect(String(engine.info.execution['gpu check'])).toMatch(/ in \d+ ms$/);
    }, 60_000);

    it('a card that is lost meanwhile, or a kernel that hangs: the same, and the process goes on', async () => {
      rmSync(checksPath(), { force: true });
      process.env.TANDEM_CUDA_LIMIT = '0.5';
      spoil('tandem_add:hang');
      await using slow = await load(undefined, OPTIONS);
      expect(slow.info.warnings).toEqual([
        expect.stringMatching(
          /: add .* on cuda:0: 1 row: what a GPU is given alone ends within 0.5 s; step ".*" \(add\) did not/,
        ),
      ]);
      spoil(undefined);
      process.env.TANDEM_FAKE_CUDA_FAIL = 'cuLaunchKernel:9:700:self-check';
      await using lost = await load(undefined, OPTIONS);
      expect(lost.info.warnings).toEqual([expect.stringMatching(/on cuda:\d: .*goes on answering; Fake was lost/)]);
      expect((await lost.chat(messages)).text).toBe('9 + 0 = 9');
    }, 60_000);
  });
});
