/**
 * Builds the native tests under sanitizers and runs them: `node scripts/sanitize.mjs [address] [thread] [none] [--only NAME]`.
 * Default: address (with undefined) and thread. Several minutes; builds live in build/sanitize-*.
 */
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const args = process.argv.slice(2);
const NAMES = ['address', 'thread', 'none'];
const usage = `node scripts/sanitize.mjs [${NAMES.join('] [')}] [--only NAME]`;
const named = [];
let only = [];
while (args.length > 0) {
  const arg = args.shift();
  if (NAMES.includes(arg)) named.push(arg);
  else if (arg === '--only' && args.length > 0) only = [args.shift()];
  else {
    console.error(`[native] ${arg} is no argument here; ${usage}`);
    process.exit(1);
  }
}

function run(command, given, env = {}) {
  const { status, error } = spawnSync(command, given, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status === 0) return;
  console.error(`[native] ${command} ${given.join(' ')} failed${error ? `: ${error.message}` : ''}`);
  process.exit(1);
}

for (const sanitizer of named.length > 0 ? named : ['address', 'thread']) {
  const folder = join('build', `sanitize-${sanitizer}`);
  const flag = sanitizer === 'none' ? '' : sanitizer;
  run('cmake', ['-S', 'native', '-B', folder, '-DTANDEM_TESTS=ON', `-DTANDEM_SANITIZE=${flag}`]);
  run('cmake', [
    '--build',
    folder,
    '--parallel',
    String(Math.max(2, availableParallelism())),
    '--target',
    'native_tests',
  ]);
  run(join(folder, 'native_tests'), only, {
    ASAN_OPTIONS: 'detect_leaks=1:allocator_may_return_null=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    TSAN_OPTIONS: 'halt_on_error=1',
  });
}
