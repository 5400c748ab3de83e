/** The programs of bench/gpu, which a card is measured with: they compile against the kernels as they are, without CUDA. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const compiler = process.env.CXX ?? 'c++';
const hasCompiler = spawnSync(compiler, ['--version']).status === 0;
const native = fileURLToPath(new URL('../../native/', import.meta.url));
const bench = fileURLToPath(new URL('../../bench/gpu/', import.meta.url));
const FLAGS = ['-std=c++20', '-fsyntax-only', '-Wall', '-Wextra', '-Werror', '-Wno-unused-function'];

describe.skipIf(!hasCompiler)(`bench/gpu${hasCompiler ? '' : ` (skipped: no C++ compiler "${compiler}")`}`, () => {
  it.each(readdirSync(bench).filter((file) => file.endsWith('.cc')))(
    '%s compiles',
    async (file) => {
      const child = spawn(compiler, [...FLAGS, '-I', native, '-I', bench, join(bench, file)], { stdio: 'pipe' });
      const ended = once(child, 'close');
      expect(await text(child.stderr)).toBe('');
      expect((await ended)[0]).toBe(0);
    },
    120_000,
  ); // a busy machine compiles slowly

  it('run.sh is a script that bash reads', () => {
    expect(spawnSync('bash', ['-n', join(bench, 'run.sh')], { encoding: 'utf8' }).stderr).toBe('');
  });
});
