/**
 * Builds `build/tandem.node` with plain CMake: `node scripts/build-native.mjs [--if-possible] [--force]`.
 *
 * Skips when no source is newer than the addon. `--if-possible`: where a tool is missing, says so and exits with 0 (for
 * installs on machines that only want the TypeScript part). Environment: CMAKE_BUILD_PARALLEL_LEVEL (default: 2, or the cores).
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const build = join(root, 'build');
const addon = join(build, 'tandem.node');
const require = createRequire(import.meta.url);
const flags = new Set(process.argv.slice(2));

/** Says what is wrong in one message and ends: with 0 if the build was optional. */
function give(message) {
  console.error(`[native] ${message}`);
  process.exit(flags.has('--if-possible') ? 0 : 1);
}

function runs(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

function checkTools() {
  const compiler = process.env.CXX ?? ['c++', 'g++', 'clang++'].find(runs);
  const missing = [];
  if (!runs('cmake')) missing.push('cmake');
  if (!runs('make') && !runs('ninja')) missing.push('make');
  if (compiler === undefined || !runs(compiler)) missing.push('g++');
  if (process.platform !== 'linux') give(`the native core builds on Linux; this is ${process.platform}`);
  if (missing.length > 0) {
    give(
      `the native core needs CMake >= 3.20, make and a C++20 compiler; missing: ${missing.join(', ')}; ` +
        `on Debian or Ubuntu: apt-get install -y ${missing.join(' ')}; then npm run build:native`,
    );
  }
}

/** Include folders of the two npm packages; no download of Node's headers. */
function includes() {
  try {
    const headers = join(dirname(require.resolve('node-api-headers/package.json')), 'include');
    const wrapper = dirname(require.resolve('node-addon-api/package.json'));
    return [headers, wrapper];
  } catch {
    return give('the packages node-api-headers and node-addon-api are not installed; run npm install');
  }
}

/** Newest change below a folder, in milliseconds. */
function newest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'test') time = Math.max(time, statSync(path).mtimeMs, newest(path));
    } else if (!entry.name.endsWith('.md')) time = Math.max(time, statSync(path).mtimeMs);
  }
  return time;
}

/** What, besides the sources, the addon depends on. */
const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
const stamp = join(build, 'tandem.stamp');
const wanted = JSON.stringify({ version, platform: process.platform, arch: process.arch, cxx: process.env.CXX ?? '' });

function upToDate() {
  if (flags.has('--force') || !existsSync(addon) || !existsSync(stamp)) return false;
  if (readFileSync(stamp, 'utf8') !== wanted) return false;
  const built = statSync(addon).mtimeMs;
  return built > newest(join(root, 'native')) && built > statSync(fileURLToPath(import.meta.url)).mtimeMs;
}

/** CMake refuses a build folder that was made elsewhere (a checkout that was moved or copied) or with another generator. */
function forgetOtherBuild(generator) {
  const cache = join(build, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const text = readFileSync(cache, 'utf8');
  const entry = (name) => new RegExp(`^${name}:[A-Z]+=(.*)$`, 'm').exec(text)?.[1];
  const sameTree = resolve(entry('CMAKE_HOME_DIRECTORY') ?? '') === resolve(root, 'native');
  if (sameTree && (generator === undefined || entry('CMAKE_GENERATOR') === generator)) return;
  rmSync(cache);
  rmSync(join(build, 'CMakeFiles'), { recursive: true, force: true });
}

function cmake(args) {
  const { status, error } = spawnSync('cmake', args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) give(`the build failed${error ? ` (${error.message})` : ''}; the lines above say where`);
}

if (!upToDate()) {
  checkTools();
  mkdirSync(build, { recursive: true });
  const started = Date.now();
  const generator = runs('make') ? undefined : 'Ninja';
  forgetOtherBuild(generator);
  const parallel = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(Math.max(2, availableParallelism()));
  cmake([
    '-S',
    'native',
    '-B',
    'build',
    ...(generator === undefined ? [] : ['-G', generator]),
    '-DCMAKE_BUILD_TYPE=Release',
    `-DTANDEM_VERSION=${version}`,
    `-DTANDEM_NODE_INCLUDE=${includes().join(';')}`,
  ]);
  cmake(['--build', 'build', '--parallel', parallel]);
  writeFileSync(stamp, wanted);
  console.error(`[native] build/tandem.node built in ${((Date.now() - started) / 1000).toFixed(0)} s`);
}
