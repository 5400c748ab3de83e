/** The GPU kernels compile for every architecture, where there is nvcc: CI has it, users need it not. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/build-cuda.mjs', import.meta.url));
const hasCompiler = spawnSync('nvcc', ['--version']).status === 0;

it.skipIf(!hasCompiler)(
  `GPU kernels compile for every architecture${hasCompiler ? '' : ' (skipped: no nvcc)'}`,
  async () => {
    const child = spawn(process.execPath, [script, '--check'], { stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = once(child, 'close');
    expect(await text(child.stderr)).toMatch(
      /^\[cuda\] the kernels compile for sm_80, sm_86, sm_89, sm_90, sm_100, sm_120; \d+ s\n$/,
    );
    expect((await ended)[0]).toBe(0);
  },
  1_200_000, // minutes of two processors, more where others work
);
