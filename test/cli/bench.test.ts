/** `tandem bench` and `tandem perplexity` from outside: what they print, not how fast anything is. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { defaultModelPath } from '../../src/index.ts';
import { parseProfile } from '../../src/placement/profile.ts';
import { build, tandem } from './tandem.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-bench-cli-'));
const TEXT = join(folder, 'text.txt');
beforeAll(() => {
  build();
  writeFileSync(TEXT, 'What is 3 + 4?\n3 + 4 = 7\n'.repeat(3));
});
afterAll(() => rmSync(folder, { recursive: true }));

const TINY = ['--hidden', '64', '--intermediate', '32', '--experts', '4', '--topk', '2', '--format', 'q8_0'];
const positive = expect.toSatisfy((value: number) => value > 0);

describe.skipIf(nativeProblem())('bench', () => {
  test('model: an object with both rates; --record keeps it with machine, commit and command', async () => {
    const args = ['bench', 'model', '--prompt', '12', '--generate', '3', '--threads', '1', '--rounds', '2'];
    const { code, stdout, stderr } = await tandem([...args, '--no-ceiling', '--json', '--record'], { cwd: folder });
    const result = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(result).toMatchObject({
      prefillTokensPerSecond: positive,
      decodeTokensPerSecond: positive,
      model: { name: 'jug-Q8_0.gguf' },
      promptTokens: 12,
      generatedTokens: 3,
      threads: 1,
      prefillTflops: positive,
      numerics: expect.stringMatching(/^(exact|fast)$/),
      machine: { cpu: expect.any(String), logicalCores: positive },
    });
    expect(result.runs.tandem).toHaveLength(2);
    expect(result.decodeGigabytesPerSecond).toBeCloseTo((result.bytesPerToken * result.decodeTokensPerSecond) / 1e9, 9);
    const file = join('bench', 'results', 'model-jug-Q8_0-p12-g3-t1.json');
    expect(stderr).toBe(`${file}\n`);
    const record = JSON.parse(readFileSync(join(folder, file), 'utf8'));
    const { machine, commit, ...rest } = result;
    expect(record).toMatchObject({ machine, result: rest });
    expect(record.commit).toBe(commit);
    expect(record.command).toBe(`tandem ${args.join(' ')} --no-ceiling --json --record`);
  });

  test('model: every round computes the whole prompt', async () => {
    const args = ['bench', 'model', '--prompt', '140', '--generate', '1', '--threads', '1', '--rounds', '2'];
    const { runs } = JSON.parse((await tandem([...args, '--no-ceiling', '--json'])).stdout);
    expect(runs.tandem.map(({ computedTokens }: { computedTokens: number }) => computedTokens)).toEqual([140, 140]);
  });

  test('experts: an array, one object a batch size', async () => {
    const args = ['bench', 'experts', ...TINY, '--layers', '2', '--tokens', '1,16', '--rounds', '2', '--no-ceiling'];
    const { stdout, stderr } = await tandem([...args, '--json']);
    const [one, sixteen] = JSON.parse(stdout);
    expect(stderr).toBe('');
    const { unit, ...figures } = one;
    expect([undefined, 'avx2_int8', 'avx512_int8']).toContain(unit);
    expect(figures).toEqual({
      tokens: 1,
      milliseconds: positive,
      tflops: positive,
      gigabytesPerSecond: positive,
      distinctExperts: 2,
    });
    expect(sixteen.tflops).toBeCloseTo((6 * 64 * 32 * 2 * 16) / (sixteen.milliseconds * 1e9), 9);
    const bytes = sixteen.distinctExperts * 3 * 64 * 34;
    expect(sixteen.gigabytesPerSecond).toBeCloseTo(bytes / (sixteen.milliseconds * 1e6), 9);
    const human = await tandem(args);
    expect(human.stdout).toMatch(
      /^hidden 64, intermediate 32, 2 of 4 experts, q8_0; .*\nlayers: 2 of .*\n\ntokens +ms +TFLOPS/,
    );
  });

  test('shares of the ceiling, where it is measured', async () => {
    const args = ['bench', 'experts', ...TINY, '--layers', '1', '--tokens', '4', '--rounds', '1', '--threads', '1'];
    const [four] = JSON.parse((await tandem([...args, '--json'])).stdout);
    expect(four.shareOfReadBandwidth).toBeGreaterThan(0);
    if (four.unit) expect(four.shareOfPeak).toBeGreaterThan(0);
    const env = { XDG_CACHE_HOME: join(folder, 'cache') };
    const { stdout } = await tandem(['bench', 'machine', '--formats', 'q8_0', '--json'], { env });
    const machine = JSON.parse(stdout);
    expect(machine.readBandwidth[0]).toMatchObject({ threads: 1, gigabytesPerSecond: positive });
    const names = machine.peaks.map(({ name }: { name: string }) => name);
    expect(names.includes('avx2_int8')).toBe(machine.features.includes('avx2'));
    for (const { tflops } of machine.peaks) expect(tflops).toBeGreaterThan(0);
    const { kernels, ...profile } = parseProfile(machine, 'what it prints');
    expect(profile).toMatchObject({ memory: { measured: true, bandwidth: positive }, peaks: { f32: positive } });
    expect(kernels!.matrices.map(({ op, format }) => `${op} ${format}`)).toEqual([
      'linear q8_0',
      'experts q8_0',
      'linear f32',
    ]);
    const kept = JSON.parse(readFileSync(join(folder, 'cache', 'tandem', 'machine.json'), 'utf8'));
    expect(kept.profile).toEqual(machine.profile);
  });

  test('ops: every op of the Program, prefill and decode', async () => {
    const { stdout } = await tandem(['bench', 'ops', '--prompt', '9', '--generate', '2', '--json']);
    const { prefill, decode } = JSON.parse(stdout);
    for (const phase of [prefill, decode]) {
      expect(phase.map(({ op }: { op: string }) => op)).toEqual(expect.arrayContaining(['linear', 'mla', 'experts']));
      expect(phase.reduce((sum: number, { share }: { share: number }) => sum + share, 0)).toBeCloseTo(1, 9);
    }
    expect(decode.find(({ op }: { op: string }) => op === 'linear').gigabytesPerSecond).toBeGreaterThan(0);
  });

  test('load: each way', async () => {
    const results = JSON.parse((await tandem(['bench', 'load', '--json'])).stdout);
    expect(results.map(({ load }: { load: string }) => load)).toEqual(['auto', 'mmap', 'pages']);
    for (const result of results) {
      const { seconds, weightSeconds, firstTokenSeconds, weightBytes, bytesFromCache, bytesFromDisk } = result;
      expect(firstTokenSeconds).toBeGreaterThan(seconds);
      expect(seconds).toBeGreaterThan(weightSeconds);
      expect(bytesFromCache + bytesFromDisk).toBe(weightBytes);
      expect(result.gigabytesPerSecond).toBeCloseTo(weightBytes / weightSeconds / 1e9, 9);
      expect(result.loaded).toMatch(/^\d+\.\d MB .* GB\/s$/);
    }
    expect(results.map(({ way }: { way: string }) => way)).toEqual(['pages', 'mmap', 'pages']);
  });

  test('load: a cold file comes from the disk, a small budget leaves the experts mapped', async () => {
    const model = join(folder, 'cold.gguf');
    copyFileSync(defaultModelPath(), model);
    const [cold] = JSON.parse((await tandem(['bench', 'load', model, '--load', 'auto', '--cold', '--json'])).stdout);
    expect(cold).toMatchObject({ load: 'auto', way: 'pages', cold: true });
    const args = ['bench', 'load', model, '--load', 'auto', '--memory', '25MB', '-c', '64', '--json'];
    const [short] = JSON.parse((await tandem(args)).stdout);
    expect(short.way).toMatch(/experts mmap$/);
    expect(short.loaded).toMatch(/; experts .*25\.0 MB/);
    expect(short.bytesFromCache + short.bytesFromDisk).toBeLessThan(short.weightBytes);
  });

  test.each([
    [['bench', 'experts', '--topk', '5', '--experts', '4'], /a token goes to at most as many experts as there are/],
    [['bench', 'experts', '--tokens', '1,x'], /batch sizes of 1 to 65536 with commas/],
    [['bench', 'experts', '--hidden', '100'], /q4_k.*256.*100/],
    [['bench', 'model', 'nope.gguf'], /nope\.gguf/],
    [['bench', 'model', '--against', 'nope'], /node-llama-cpp/],
    [['bench', 'modle'], /did you mean model\?/],
  ])('%j is refused in one line', async (args, says) => {
    const { code, stdout, stderr } = await tandem(args);
    expect(stderr).toMatch(says);
    expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1]);
  });

  test('every kind has help with examples', async () => {
    for (const what of ['model', 'experts', 'ops', 'load', 'machine'])
      expect((await tandem(['bench', what, '--help'])).stdout).toContain(`\nExamples:\n  tandem bench ${what}`);
  });
});

describe('perplexity', () => {
  const ARGS = ['perplexity', '--backend', 'reference', '--text', TEXT, '--window', '10', '--skip', '2', '-c', '16'];

  test('as JSON, and against another model: itself', async () => {
    const { stdout, stderr } = await tandem([...ARGS, '--json']);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ perplexity: positive, window: 10, skip: 2, tokens: positive });
    expect(result.perplexity).toBeCloseTo(Math.exp(result.negativeLogLikelihood), 9);
    expect(stderr).toBe('');
    const both = JSON.parse((await tandem([...ARGS, '--kl-against', 'reference', '--json'])).stdout);
    expect(both).toMatchObject({ mean: 0, maximum: 0, sameTop: 1, model: result, reference: result });
  });

  test('for people', async () => {
    const { stdout } = await tandem(ARGS);
    expect(stdout).toMatch(
      /^perplexity [\d.]+ ± [\d.]+\n\d+ tokens in \d+ windows of 10, the first 2 of each only context\n$/,
    );
    const both = await tandem([...ARGS, '--kl-against', 'reference']);
    expect(both.stdout).toMatch(/KL\(reference ‖ model\), mean +0\.000e\+0 ± 0\.0e\+0 nats\n/);
    expect(both.stdout).toMatch(/same likeliest token +100\.00 %\n/);
  });

  test.each([
    [['perplexity'], /--text/],
    [['perplexity', '--text', 'nope.txt'], /cannot read nope\.txt; there is no such file/],
    [[...ARGS.slice(0, -2), '--window', '99999999'], /window is an integer in \[2, 2048\]/],
  ])('%j is refused in one line', async (args, says) => {
    const { code, stdout, stderr } = await tandem(args);
    expect(stderr).toMatch(says);
    expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1]);
  });
});
