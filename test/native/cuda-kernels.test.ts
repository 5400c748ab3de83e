/**
 * The GPU kernels, compiled for the host over an emulation of the thread grid (native/cuda/emulation), against the definitions
 * of the ops. Needs a C++20 compiler, neither a GPU nor nvcc.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compilerProblem, link, objectsOf } from './objects.ts';

const problem = compilerProblem();
const TESTS = readdirSync(fileURLToPath(new URL('../../native/test/', import.meta.url)));
const SOURCES = [
  'cuda/emulation/table.cc',
  ...TESTS.filter((file) => /^cuda_kernels_.*\.cc$/.test(file)).map((file) => `test/${file}`),
  'test/main.cc',
  'quant/grids.cc',
];

describe.skipIf(problem)(`GPU kernels${problem ? ` (skipped: ${problem})` : ''}`, () => {
  let folder = '';
  let program = '';
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'tandem-cuda-'));
    program = join(folder, 'cuda_tests');
    await link(await objectsOf(SOURCES), program);
  }, 300_000); // a busy machine compiles slowly
  afterAll(() => rmSync(folder, { recursive: true }));

  it('compute what their ops say, whatever the order of their threads', () => {
    const run = spawnSync(program, ['cuda_'], { encoding: 'utf8' });
    expect(run.stdout).toMatch(/\b[1-9]\d* tests, 0 failures/);
    expect(run.status).toBe(0);
  }, 300_000); // a busy machine runs slowly too
});
