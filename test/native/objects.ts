/**
 * C++ sources as objects for tests, with warnings as errors: compiled once, and again when something they include has
 * changed. Test files that run at once share them.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const native = join(root, 'native');
const folder = join(root, 'build', 'test-objects');
const compiler = process.env.CXX ?? 'c++';
const WARNINGS = ['-Wall', '-Wextra', '-Werror', '-Wno-unused-function'];
const FLAGS = ['-std=c++20', '-O1', '-fPIC', '-ffp-contract=off', '-pthread', ...WARNINGS];

/** Why nothing can be compiled here; undefined where it can. */
export function compilerProblem(): string | undefined {
  return spawnSync(compiler, ['--version']).status === 0 ? undefined : `no C++ compiler "${compiler}"`;
}

/** The objects of these files, by their paths from native/, in their order. Throws what the compiler says. */
export function objectsOf(sources: readonly string[]): Promise<string[]> {
  mkdirSync(folder, { recursive: true });
  return Promise.all(sources.map(objectOf));
}

/** Links objects to `out`, which appears when it is whole. */
export async function link(objects: readonly string[], out: string, ...flags: string[]): Promise<void> {
  const own = `${out}.${process.pid}`;
  await run([...flags, ...objects, '-pthread', '-o', own]);
  renameSync(own, out);
}

async function objectOf(source: string): Promise<string> {
  const name = source.replaceAll('../', '').replaceAll('/', '-');
  const object = join(folder, `${name}.o`);
  while (!isFresh(object)) {
    if (!tryLock(`${object}.lock`)) {
      await sleep(200);
      continue;
    }
    try {
      if (!isFresh(object)) await compile(source, object);
    } finally {
      rmSync(`${object}.lock`, { force: true });
    }
  }
  return object;
}

/** A file with the number of the process that compiles; one that was killed holds nothing. */
function tryLock(path: string): boolean {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  try {
    process.kill(Number(readFileSync(path, 'utf8')) || process.pid, 0);
  } catch {
    rmSync(path, { force: true });
  }
  return false;
}

async function compile(source: string, object: string): Promise<void> {
  const own = `${object}.${process.pid}`;
  const started = new Date();
  await run([...FLAGS, '-I', native, '-MMD', '-MF', `${own}.d`, '-c', join(native, source), '-o', own]);
  renameSync(`${own}.d`, `${object}.d`);
  utimesSync(own, started, started);
  renameSync(own, object);
}

/** Nothing that it was compiled from is younger. */
function isFresh(object: string): boolean {
  if (!existsSync(object) || !existsSync(`${object}.d`)) return false;
  const made = statSync(object).mtimeMs;
  const [, files] = readFileSync(`${object}.d`, 'utf8').split(': ');
  return files
    .split(/[\s\\]+/)
    .filter((file) => file.startsWith(root))
    .every((file) => (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY) < made);
}

async function run(args: readonly string[]): Promise<void> {
  const child = spawn(compiler, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'close');
  const errors = await text(child.stderr);
  if ((await ended)[0] !== 0) throw new Error(errors);
}
