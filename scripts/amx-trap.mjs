/**
 * Runs tests on the amx build of the kernels on a processor without AMX: `node scripts/amx-trap.mjs [TEST …]` (default: the
 * conformance suite). Tile instructions are carried out by a handler of SIGILL (native/test/trap/amx_trap.cc); everything else
 * of that build needs AVX512-BF16 and VBMI in the processor. Ends by naming the tile instructions of the kernels that no test met.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const addon = join(root, 'build', 'tandem_amx_trap.node');
const log = join(root, 'build', 'amx-trap.log');
const tests = process.argv.slice(2);

function run(command, given, env = {}) {
  const { status, error } = spawnSync(command, given, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status === 0) return;
  console.error(`[native] ${command} ${given.join(' ')} failed${error ? `: ${error.message}` : ''}`);
  process.exit(1);
}

/** The functions that hold tile instructions, by the addresses of those. */
function tileInstructions() {
  const { stdout } = spawnSync('objdump', ['-d', '-C', '--no-show-raw-insn', addon], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  });
  const found = new Map();
  let symbol = '';
  for (const line of stdout.split('\n')) {
    symbol = /^[0-9a-f]+ <(.+)>:$/.exec(line)?.[1] ?? symbol;
    const [, address, text] = /^\s*([0-9a-f]+):\s+(.*)$/.exec(line) ?? [];
    if (address && /^(ldtilecfg|sttilecfg|tile|tdp)/.test(text)) found.set(address, symbol);
  }
  return found;
}

run('node', [join('scripts', 'build-native.mjs')]);
run('cmake', ['--build', 'build', '--target', 'tandem_amx_trap']);
rmSync(log, { force: true });
run('npx', ['vitest', 'run', ...(tests.length > 0 ? tests : ['test/conformance'])], {
  NODE_OPTIONS: `--require ${join(root, 'scripts', 'amx-trap-preload.cjs')}`,
  TANDEM_AMX_TRAP_ADDON: addon,
  TANDEM_AMX_TRAP_LOG: log,
});
const met = new Set(existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []);
const all = tileInstructions();
const missed = [...all].filter(([address]) => !met.has(address));
console.log(`tile instructions met: ${all.size - missed.length} of ${all.size}`);
for (const symbol of new Set(missed.map(([, symbol]) => symbol)))
  console.log(`  not met: ${missed.filter(([, other]) => other === symbol).length} in ${symbol}`);
