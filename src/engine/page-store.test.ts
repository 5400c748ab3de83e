import * as fs from 'node:fs/promises';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type FolderFiles, PageFolder } from './page-folder.ts';
import { PageStore } from './page-store.ts';

const PAGE = 256;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tandem-pages-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const open = async ({ fingerprint = 'm', maxBytes = 1 << 20, pageBytes = PAGE, files = {} }: Opening = {}) =>
  new PageStore({
    folder: await PageFolder.open({ directory, maxBytes, files: { ...fs, ...files } }),
    fingerprint,
    pageBytes,
  });

interface Opening {
  fingerprint?: string;
  maxBytes?: number;
  pageBytes?: number;
  files?: Partial<FolderFiles>;
}

const tokens = (salt: number) => Int32Array.from({ length: 64 }, (_, i) => salt * 1000 + i);
const page = (salt: number) => Uint8Array.from({ length: PAGE }, (_, i) => (salt * 7 + i) & 255);

async function files(): Promise<string[]> {
  const names = await readdir(directory, { recursive: true, withFileTypes: true });
  return names.filter((name) => name.isFile()).map(({ parentPath, name }) => join(parentPath, name));
}

const PAGE_BEING_WRITTEN = /\.[0-9a-f]{64}\.[^/]*\.tmp$/;
const refuse = (code: string) => async () => {
  throw Object.assign(new Error(`${code}: a fault`), { code });
};

describe('page store', () => {
  test('what was written is there after a restart, for the same model only', async () => {
    const store = await open();
    const first = store.key('', tokens(1));
    const second = store.key(first, tokens(2));
    await store.write(first, tokens(1), page(1));
    await store.write(second, tokens(2), page(2));
    const again = await open();
    expect(again.stats).toMatchObject({ pages: 2, errors: 0 });
    expect(await again.read(second, tokens(2))).toEqual(Buffer.from(page(2)));
    const other = await open({ fingerprint: 'n' });
    expect(other.key('', tokens(1))).not.toBe(first);
    expect(other.has(first)).toBe(false);
  });

  test('a name says what goes before', async () => {
    const store = await open();
    const [a, b] = [store.key('', tokens(1)), store.key('', tokens(2))];
    expect(store.key(a, tokens(3))).not.toBe(store.key(b, tokens(3)));
  });

  test.each([
    ['cut off', (path: string) => truncate(path, 100)],
    ['empty', (path: string) => truncate(path, 0)],
    [
      'with one bit turned in the page',
      async (path: string) => {
        const bytes = await readFile(path);
        bytes[bytes.length - 9] ^= 1;
        await writeFile(path, bytes);
      },
    ],
    [
      'with one bit turned in the tokens',
      async (path: string) => {
        const bytes = await readFile(path);
        bytes[20] ^= 1;
        await writeFile(path, bytes);
      },
    ],
  ])('a file %s is never used, and deleted', async (_, damage) => {
    const store = await open();
    const key = store.key('', tokens(1));
    await store.write(key, tokens(1), page(1));
    await damage((await files())[0]);
    expect(await store.read(key, tokens(1))).toBeUndefined();
    expect(store.stats).toMatchObject({ corrupt: 1, pages: 0, bytes: 0 });
    expect(await files()).toEqual([]);
  });

  test('a file under the wrong name is never used', async () => {
    const store = await open();
    const [a, b] = [store.key('', tokens(1)), store.key('', tokens(2))];
    await store.write(a, tokens(1), page(1));
    await writeFile((await files())[0].replace(a, b), await readFile((await files())[0]));
    expect(await (await open()).read(b, tokens(2))).toBeUndefined();
  });

  test('a page behind other tokens is never used, its own tokens may be the same', async () => {
    const store = await open();
    const parents = [store.key('', tokens(1)), store.key('', tokens(2))];
    const [a, b] = parents.map((parent) => store.key(parent, tokens(3)));
    await store.write(a, tokens(3), page(3));
    await writeFile((await files())[0].replace(a, b), await readFile((await files())[0]));
    const again = await open();
    expect(await again.read(b, tokens(3))).toBeUndefined();
    expect(await again.read(a, tokens(3))).toEqual(Buffer.from(page(3)));
  });

  test('a bit turned anywhere in a file makes it no page', async () => {
    const store = await open();
    const key = store.key('', tokens(1));
    await store.write(key, tokens(1), page(1));
    const [path] = await files();
    const good = await readFile(path);
    for (let byte = 0; byte < good.length; byte++) {
      const bad = Buffer.from(good);
      bad[byte] ^= 1 << (byte & 7);
      await writeFile(path, bad);
      expect(await (await open()).read(key, tokens(1))).toBeUndefined();
    }
    await writeFile(path, good);
    expect(await (await open()).read(key, tokens(1))).toBeDefined();
  });

  test('a file longer than a page is not even read', async () => {
    const store = await open();
    const key = store.key('', tokens(1));
    await store.write(key, tokens(1), page(1));
    await truncate((await files())[0], 2 ** 40);
    expect(await (await open({ maxBytes: 2 ** 42 })).read(key, tokens(1))).toBeUndefined();
  });

  test('the folder stays below its size, what was used last stays', async () => {
    const bytes = (await sizeOfPage()) * 3;
    const store = await open({ maxBytes: bytes });
    const keys: string[] = [];
    for (let i = 0; i < 5; i++) {
      keys.push(store.key('', tokens(i)));
      await store.write(keys[i], tokens(i), page(i));
      await new Promise((resolve) => setTimeout(resolve, 3));
      if (i === 2) store.use([keys[0]]);
    }
    expect(store.stats.folderBytes).toBeLessThanOrEqual(bytes);
    expect(keys.map((key) => store.has(key))).toEqual([true, false, false, true, true]);
  });

  test('the size is that of all models: those used long ago make room, and leave no empty folder', async () => {
    const bytes = (await sizeOfPage()) * 3;
    const old = await open({ fingerprint: 'old' });
    for (const i of [1, 2]) await old.write(old.key('', tokens(i)), tokens(i), page(i));
    for (const path of await files()) await utimes(path, 1000, 1000);
    const store = await open({ maxBytes: bytes });
    for (const i of [1, 2, 3]) await store.write(store.key('', tokens(i)), tokens(i), page(i));
    expect(store.stats).toMatchObject({ pages: 3, bytes, folderBytes: bytes, errors: 0 });
    expect((await open({ fingerprint: 'old' })).stats.pages).toBe(0);
    expect(await readdir(directory)).toHaveLength(1);
    expect(await files()).toHaveLength(3);
  });

  test('of a prefix the end goes first', async () => {
    const bytes = (await sizeOfPage()) * 3;
    const store = await open({ maxBytes: bytes });
    const keys: string[] = [];
    for (let i = 0; i < 3; i++) {
      keys.push(store.key(keys.at(-1) ?? '', tokens(i)));
      await store.write(keys[i], tokens(i), page(i));
    }
    store.use(keys);
    await store.write(store.key('', tokens(9)), tokens(9), page(9));
    expect(keys.map((key) => store.has(key))).toEqual([true, true, false]);
  });

  async function sizeOfPage(): Promise<number> {
    const store = await open({ fingerprint: 'size' });
    const key = store.key('', tokens(9));
    await store.write(key, tokens(9), page(9));
    const { bytes } = store.stats;
    await rm(dirname((await files())[0]), { recursive: true });
    return bytes;
  }

  test('half-written files of a killed process are not pages, and go when they are old', async () => {
    const store = await open();
    await store.write(store.key('', tokens(1)), tokens(1), page(1));
    const half = join(dirname((await files())[0]), `.${'a'.repeat(64)}.1.x.tmp`);
    await writeFile(half, 'half');
    expect((await open()).stats.pages).toBe(1);
    expect(await files()).toHaveLength(2);
    await utimes(half, 1000, 1000);
    expect((await open()).stats.pages).toBe(1);
    expect(await files()).toHaveLength(1);
  });

  test('what is not named like a page is left alone', async () => {
    const store = await open();
    await store.write(store.key('', tokens(1)), tokens(1), page(1));
    const [path] = await files();
    const others = [join(directory, 'notes.txt'), join(dirname(path), 'b.page'), join(directory, 'photos', 'a.tmp')];
    await mkdir(join(directory, 'photos'));
    for (const other of others) await writeFile(other, 'mine');
    for (const other of others) await utimes(other, 1000, 1000);
    await open({ maxBytes: 0 });
    expect((await files()).sort()).toEqual(others.sort());
  });

  test('two processes share a folder: each finds what the other wrote, a page that went is a miss', async () => {
    const bytes = (await sizeOfPage()) * 4;
    const [a, b] = [await open({ maxBytes: bytes }), await open({ maxBytes: bytes })];
    const keys = [1, 2, 3, 4, 5, 6].map((i) => a.key('', tokens(i)));
    for (const [i, key] of keys.entries()) await (i % 2 ? a : b).write(key, tokens(i + 1), page(i + 1));
    const last = await open({ maxBytes: bytes });
    expect(last.stats.pages).toBe(4);
    for (const store of [a, b, last])
      for (const [i, key] of keys.entries()) {
        const read = await store.read(key, tokens(i + 1));
        if (read) expect(read).toEqual(Buffer.from(page(i + 1)));
      }
    expect([a, b, last].map(({ stats }) => [stats.corrupt, stats.errors])).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
  });

  test('the same page written by two at once is one page', async () => {
    const [a, b] = [await open(), await open()];
    const key = a.key('', tokens(1));
    await Promise.all([a.write(key, tokens(1), page(1)), b.write(key, tokens(1), page(1))]);
    expect(await files()).toHaveLength(1);
    expect(await a.read(key, tokens(1))).toEqual(Buffer.from(page(1)));
  });

  test('a folder that is removed while it is used is made again', async () => {
    const store = await open();
    await store.write(store.key('', tokens(1)), tokens(1), page(1));
    await rm(directory, { recursive: true });
    expect(await store.read(store.key('', tokens(1)), tokens(1))).toBeUndefined();
    const key = store.key('', tokens(2));
    await store.write(key, tokens(2), page(2));
    expect(await store.read(key, tokens(2))).toEqual(Buffer.from(page(2)));
    expect(store.stats).toMatchObject({ pages: 1, errors: 0 });
  });

  test.each(['ENOSPC', 'EDQUOT', 'EIO', 'EROFS'])('%s while writing costs a page, not an error', async (code) => {
    const store = await open();
    const kept = store.key('', tokens(1));
    await store.write(kept, tokens(1), page(1));
    let asked = 0;
    const half: typeof writeFile = async (path, ...rest) => {
      if (!PAGE_BEING_WRITTEN.test(String(path))) return writeFile(path, ...rest); // the probe of the folder
      asked++;
      await writeFile(path, 'half');
      return refuse(code)();
    };
    const full = await open({ files: { writeFile: half } });
    const key = full.key('', tokens(2));
    await full.write(key, tokens(2), page(2));
    await full.write(full.key('', tokens(3)), tokens(3), page(3));
    expect(asked).toBe(1); // then it rests
    expect(full.has(key)).toBe(false);
    expect(full.stats).toMatchObject({ pages: 1, errors: 1, corrupt: 0 });
    expect(await full.read(kept, tokens(1))).toEqual(Buffer.from(page(1)));
    expect(await files()).toHaveLength(1); // nothing half-written is left
  });

  test.each(['ENOSPC', 'EDQUOT'])('%s is no reason not to begin', async (code) => {
    const kept = await open();
    await kept.write(kept.key('', tokens(1)), tokens(1), page(1));
    const full = await open({ files: { writeFile: refuse(code) } });
    expect(await full.read(kept.key('', tokens(1)), tokens(1))).toEqual(Buffer.from(page(1)));
  });

  test.each(['EIO', 'EACCES'])('%s while reading costs a page, not an error', async (code) => {
    const store = await open();
    const key = store.key('', tokens(1));
    await store.write(key, tokens(1), page(1));
    const broken = await open({ files: { readFile: refuse(code) as never } });
    expect(await broken.read(key, tokens(1))).toBeUndefined();
    expect(broken.stats).toMatchObject({ errors: 1, corrupt: 0 });
  });

  test('a folder that cannot be had says so', async () => {
    for (const code of ['EACCES', 'EROFS', 'EPERM'])
      await expect(open({ files: { writeFile: refuse(code) } })).rejects.toMatchObject({ code: 'FILE_IO' });
    await expect(open({ files: { readdir: refuse('EACCES') as never } })).rejects.toMatchObject({ code: 'FILE_IO' });
    await rm(directory, { recursive: true });
    await writeFile(directory, ''); // a file where the folder was
    await expect(open()).rejects.toMatchObject({ code: 'FILE_IO' });
    const nowhere = PageFolder.open({ directory: '/proc/nowhere/at/all', maxBytes: 1 });
    await expect(nowhere).rejects.toMatchObject({ code: 'FILE_IO' });
  });

  test('a page that a directory stands for is no page', async () => {
    const store = await open();
    const key = store.key('', tokens(1));
    await store.write(key, tokens(1), page(1));
    const [path] = await files();
    await rename(path, `${path}.away`);
    await mkdir(path);
    expect(await store.read(key, tokens(1))).toBeUndefined();
    expect((await open()).stats.pages).toBe(0);
    expect((await stat(path)).isDirectory()).toBe(true);
  });
});
