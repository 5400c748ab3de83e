import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GpuList } from './binding.ts';
import { findKernels } from './gpus.ts';
import { loadNative, nativeProblem, ROOT } from './load.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-gpus-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('kernels', () => {
  const put = (path: string, text: string) => {
    mkdirSync(join(folder, path, '..'), { recursive: true });
    writeFileSync(join(folder, path), text);
    return join(folder, path);
  };

  it('of a checkout go before those of the package, and say what compiled them', () => {
    const manifest = put('package/package.json', '{"version":"1.2.3"}');
    expect(findKernels(folder, '1.2.3', () => undefined)).toEqual({ path: '', version: 0 });
    const installed = { path: join(folder, 'package', 'tandem-cuda.fatbin'), version: 0 };
    expect(findKernels(folder, '1.2.3', () => manifest)).toEqual(installed);
    put('package/tandem-cuda.json', '{"cuda":"12.8"}');
    expect(findKernels(folder, '1.2.3', () => manifest)).toEqual({ ...installed, version: 12080 });
    const built = put('build/tandem-cuda.fatbin', '');
    expect(findKernels(folder, '1.2.3', () => manifest)).toEqual({ path: built, version: 0 });
  });

  it('of another version are named and not taken', () => {
    const manifest = put('other/package.json', '{"version":"1.0.0"}');
    const { path, problem } = findKernels(join(folder, 'nothing'), '1.2.3', () => manifest);
    expect(path).toBe('');
    expect(problem).toMatch(/of version 1\.0\.0, tandem of 1\.2\.3: npm install tandem-cuda-linux-x64@1\.2\.3/);
  });
});

const compiler = process.env.CXX ?? 'c++';
const canRun = !nativeProblem() && loadNative().gpus !== undefined && spawnSync(compiler, ['--version']).status === 0;

/** The addon in a process of its own, over the fake driver of native/cuda/fake. */
describe.skipIf(!canRun)('the addon', () => {
  const driver = join(folder, 'libcuda.so.1');

  beforeAll(() => {
    const fake = join(ROOT, 'native', 'cuda', 'fake');
    const sources = readdirSync(fake).filter((file) => file.endsWith('.cc'));
    const flags = ['-std=c++20', '-O1', '-fPIC', '-shared', '-pthread', '-I', join(ROOT, 'native')];
    const { status, stderr } = spawnSync(
      compiler,
      [...flags, ...sources.map((file) => join(fake, file)), '-o', driver],
      {
        encoding: 'utf8',
      },
    );
    if (status !== 0) throw new Error(stderr);
  }, 120_000);

  function gpus(machine: string | undefined, kernels = '/kernels'): GpuList {
    const script = `const b = require(process.argv[1]); console.log(JSON.stringify(b.gpus(process.argv[2], 13000, true)))`;
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['-e', script, join(ROOT, 'build', 'tandem.node'), kernels],
      {
        encoding: 'utf8',
        env: {
          ...process.env,
          TANDEM_CUDA_LIBRARY: machine === undefined ? join(folder, 'none.so') : driver,
          TANDEM_FAKE_CUDA: machine ?? '',
        },
      },
    );
    if (stdout === '') throw new Error(stderr);
    return JSON.parse(stdout);
  }

  it('finds none where there is no driver, and that is no error', () => {
    expect(gpus(undefined)).toEqual({ cuda: '', problem: '', gpus: [] });
  });

  it('describes what is there', () => {
    const { cuda, problem, gpus: found } = gpus('gpus=2;name=Some Card;capability=8.9;memory=24000000000');
    expect({ cuda, problem }).toEqual({ cuda: '13.0', problem: '' });
    expect(found.map(({ device, refused }) => [device, refused])).toEqual([
      ['cuda:0', ''],
      ['cuda:1', ''],
    ]);
    expect(found[1]).toMatchObject({ name: 'Some Card', capability: '8.9', memoryBytes: 24e9, freeBytes: 24e9 });
  });

  it.each([
    ['a driver that is too old', 'version=11040', /CUDA 12\.0 or later; .* serves CUDA 11\.4/],
    ['a driver without a card', 'gpus=0', /CUDA_ERROR_NO_DEVICE/],
  ])('says why of %s', (_, machine, words) => {
    const { problem, gpus: found } = gpus(machine);
    expect(problem).toMatch(words);
    expect(found).toEqual([]);
  });

  it.each([
    ['an old card', 'capability=7.5', '/kernels', /compute capability 7\.5, at least 8\.0/],
    ['missing kernels', '', '', /tandem-cuda-linux-x64/],
    ['newer kernels', 'version=12040', '/kernels', /serves CUDA 12\.4, the kernels need 13\.0/],
  ])('refuses %s', (_, machine, kernels, words) => {
    expect(gpus(machine, kernels).gpus[0].refused).toMatch(words);
  });
});
