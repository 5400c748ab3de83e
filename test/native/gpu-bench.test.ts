/**
 * The programs of bench/gpu, which a card is measured with: they compile, link as its CMakeLists.txt says, and run over the fake driver,
 * without CUDA.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compilerProblem, link, objectsOf } from './objects.ts';

const problem = compilerProblem();
const native = fileURLToPath(new URL('../../native/', import.meta.url));
const bench = fileURLToPath(new URL('../../bench/gpu/', import.meta.url));
const cmake = readFileSync(join(bench, 'CMakeLists.txt'), 'utf8');

/** What CMakeLists.txt makes a target of, by paths from native/. */
function sourcesOf(target: string): string[] {
  const [, list] = new RegExp(`\\(${target} (?:OBJECT )?([^)]*)\\)`).exec(cmake)!;
  const files = list.matchAll(/(\$\{NATIVE\}\/)?(\S+\.cc)/g);
  return [...files].map(([, isNative, path]) => (isNative ? path : `../bench/gpu/${path}`));
}

const matching = (folder: string, name: RegExp) =>
  readdirSync(join(native, folder))
    .filter((file) => name.test(file))
    .map((file) => `${folder}/${file}`);
const FAKE = [...matching('cuda/fake', /\.cc$/), 'cuda/emulation/table.cc', 'quant/grids.cc'];
const [, withoutLaunches] = /EXCLUDE REGEX "(.*)"/.exec(cmake)!;
const TESTS = matching('test', /^cuda_kernels_.*\.cc$/).filter((file) => !new RegExp(withoutLaunches).test(file));

describe.skipIf(problem)(`bench/gpu${problem ? ` (skipped: ${problem})` : ''}`, () => {
  let folder = '';
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'tandem-gpu-'));
    const device = sourcesOf('device');
    await link(await objectsOf([...device, ...sourcesOf('gpu_card')]), join(folder, 'gpu_card'), '-ldl');
    await link(
      await objectsOf([...device, ...sourcesOf('gpu_kernels'), ...sourcesOf('emulated'), ...TESTS]),
      join(folder, 'gpu_kernels'),
      '-ldl',
    );
    await link(await objectsOf(FAKE), join(folder, 'libcuda.so.1'), '-shared');
    writeFileSync(join(folder, 'kernels'), '');
  }, 600_000); // a busy machine compiles slowly
  afterAll(() => rmSync(folder, { recursive: true }));

  function run(args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
    const [program, part, ...rest] = args;
    const given =
      program === 'gpu_card'
        ? [part, join(folder, 'kernels'), '0', 'small', ...rest]
        : [join(folder, 'kernels'), '0', part];
    const { status, stdout, stderr } = spawnSync(join(folder, program), given, {
      encoding: 'utf8',
      env: { ...process.env, TANDEM_CUDA_LIBRARY: join(folder, 'libcuda.so.1'), ...environment },
    });
    return { status, stderr, found: JSON.parse(stdout) };
  }

  it.each([
    ['gpu_card', 'describe'],
    ['gpu_card', 'copies'],
    ['gpu_card', 'uploads'],
    ['gpu_card', 'hand-overs'],
    ['gpu_card', 'timings'],
    ['gpu_kernels', 'cuda_rope'],
  ])(
    '%s %s does all that it would do on a card',
    (...args) => {
      const { status, found, stderr } = run(args);
      expect(
        found.results.filter(({ passed }: { passed: boolean }) => !passed),
        stderr,
      ).toEqual([]);
      expect(found.pieces).toBe(found.results.length);
      expect(found.pieces).toBeGreaterThan(0);
      expect(status).toBe(0);
    },
    300_000,
  );

  it('a card that is lost costs a piece, and what was found is kept', () => {
    const whole = run(['gpu_card', 'timings', 'only=linear_q']).found;
    const { status, found } = run(['gpu_card', 'timings', 'only=linear_q'], {
      TANDEM_FAKE_CUDA_FAIL: 'cuLaunchKernel:20:719',
    });
    expect(status).toBe(1);
    expect(found.results.map(({ name }: { name: string }) => name)).toEqual(
      whole.results.map(({ name }: { name: string }) => name),
    );
    expect(found.failed).toBeGreaterThan(0);
    expect(found.failed).toBeLessThan(found.pieces);
    expect(found.results.find(({ passed }: { passed: boolean }) => !passed).problem).toMatch(/was lost/);
  }, 300_000);

  it('a machine without a card is told apart', () => {
    const { status, found } = run(['gpu_card', 'copies'], { TANDEM_CUDA_LIBRARY: join(folder, 'none') });
    expect([status, found.problem]).toEqual([3, '[bench] there is a card; this machine has no driver']);
  });

  it('whole models from a tape: that program compiles', async () => {
    await objectsOf(['../bench/gpu/replay.cc']);
  }, 300_000);

  it.each(['run.sh', 'prebuild.sh'])('%s is a script that bash reads', (script) => {
    expect(spawnSync('bash', ['-n', join(bench, script)], { encoding: 'utf8' }).stderr).toBe('');
  });
});
