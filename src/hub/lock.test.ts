import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Lock } from './lock.ts';

let root: string;
let path: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tandem-lock-'));
  path = join(root, 'lock');
});
afterEach(() => rm(root, { recursive: true }));

/** A number that no process has. */
const NOBODY = 2 ** 22 + 1;
const holder = (pid: number, host = hostname()) => writeFile(path, JSON.stringify({ pid, host }));

test('one holder; the next one after it', async () => {
  const lock = await Lock.take(path);
  expect(lock).toBeInstanceOf(Lock);
  expect(await Lock.take(path)).toBe(`process ${process.pid}`);
  expect(await (lock as Lock).held()).toBe(true);
  await (lock as Lock).release();
  const next = (await Lock.take(path)) as Lock;
  await next.release();
  expect(await readdir(root)).toEqual([]);
});

test('of many that find it stale one gets it', async () => {
  for (let round = 0; round < 20; round++) {
    await holder(NOBODY);
    const taken = await Promise.all(Array.from({ length: 12 }, () => Lock.take(path)));
    const locks = taken.filter((one) => one instanceof Lock);
    const held = await Promise.all(locks.map((lock) => lock.held()));
    expect(held.filter(Boolean)).toHaveLength(1);
    for (const lock of locks) await lock.release();
    expect(await readdir(root)).toEqual([]);
  }
});

test('of a machine elsewhere only time tells', async () => {
  await holder(NOBODY, 'elsewhere');
  expect(await Lock.take(path)).toBe(`process ${NOBODY} on elsewhere`);
  const old = new Date(Date.now() - 61_000);
  await utimes(path, old, old);
  await ((await Lock.take(path)) as Lock).release();
});

test('what is no lock of ours is left until it is old', async () => {
  await writeFile(path, 'something else');
  expect(await Lock.take(path)).toBe('process ? on ?');
  const old = new Date(Date.now() - 61_000);
  await utimes(path, old, old);
  expect(await Lock.take(path)).toBeInstanceOf(Lock);
});

test('who lost it does not release what another one holds', async () => {
  const lock = (await Lock.take(path)) as Lock;
  await holder(NOBODY, 'elsewhere');
  expect(await lock.held()).toBe(false);
  await lock.release();
  expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ pid: NOBODY, host: 'elsewhere' });
});

test('what can neither be read nor moved is an error, not waited for', async () => {
  await mkdir(path);
  await expect(Lock.take(path)).rejects.toMatchObject({ code: 'EISDIR' });
});

test('who works in a folder of locks', async () => {
  expect(await Lock.holderIn(join(root, 'none'))).toBeUndefined();
  await holder(NOBODY);
  expect(await Lock.holderIn(root)).toBeUndefined();
  const lock = (await Lock.take(path)) as Lock;
  expect(await Lock.holderIn(root)).toBe(`process ${process.pid}`);
  await lock.release();
});
