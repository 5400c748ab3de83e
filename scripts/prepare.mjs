// Runs at the end of `npm install` in a checkout: compiles the TypeScript, the chat page and the native core, nothing is downloaded.
// A machine without a compiler still gets a working install (the `reference` backend); what is missing is said once.
import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

const types = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], {
  cwd: root,
  stdio: 'inherit',
});
if (types.status !== 0) process.exit(types.status ?? 1);
chmodSync(new URL('../dist/cli.js', import.meta.url), 0o755);

const page = spawnSync(
  process.execPath,
  ['node_modules/vite/bin/vite.js', 'build', '--config', 'web/vite.config.ts', '--logLevel', 'warn'],
  { cwd: root, stdio: 'inherit' },
);
if (page.status !== 0) process.exit(page.status ?? 1);

const native = spawnSync(process.execPath, ['scripts/build-native.mjs'], { cwd: root, stdio: 'inherit' });
if (native.status !== 0) {
  console.error(
    '\n[install] the native core was not built; see the message above; mend it and run `npm run build:native`.\n' +
      'Until then `tandem … --backend reference` works, slowly.\n',
  );
}
