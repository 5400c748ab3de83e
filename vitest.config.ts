import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // Examples import the package by its name, as users do; tests run them on the sources.
  resolve: {
    alias: {
      'tandem/transformers': fileURLToPath(new URL('./src/transformers/index.ts', import.meta.url)),
      tandem: fileURLToPath(new URL('./src/index.ts', import.meta.url)),
      'fast-check': fileURLToPath(new URL('./test/fast-check.ts', import.meta.url)),
    },
  },
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // A machine may be loaded; what hangs is found all the same.
    testTimeout: 180_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 90_000 } },
    maxWorkers: 2,
    // Worker threads of the engine start from the sources too.
    execArgv: ['--import', fileURLToPath(new URL('./scripts/typescript-hooks.mjs', import.meta.url))],
    // Numbers of threads that this machine has no cores for are tested all the same (CONTRIBUTING.md).
    env: { TANDEM_OVERSUBSCRIBE: '1' },
  },
});
