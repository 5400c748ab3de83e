import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { PageStore } from './page-store.ts';

const PAGE = 256;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tandem-pages-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const open = (options: { fingerprint?: string; maxBytes?: number } = {}) =>
  PageStore.open({ directory, fingerprint: 'm', pageBytes: PAGE, maxBytes: 1 << 20, ...options });
const tokens = (salt: number) => Int32Array.from({ length: 64 }, (_, i) => salt * 1000 + i);
const page = (salt: number) => Uint8Array.from({ length: PAGE }, (_, i) => (salt * 7 + i) & 255);

async function files(): Promise<string[]> {
  const [folder] = await readdir(directory);
  const names = folder === undefined ? [] : await readdir(join(directory, folder));
  return names.map((name) => join(directory, folder, name));
}

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

  test('the folder stays below its size, what was used last stays', async () => {
    const bytes = (await readFileSize()) * 3;
    const store = await open({ maxBytes: bytes });
    const keys: string[] = [];
    for (let i = 0; i < 5; i++) {
      keys.push(store.key('', tokens(i)));
      await store.write(keys[i], tokens(i), page(i));
      await new Promise((resolve) => setTimeout(resolve, 3));
      if (i === 2) await store.read(keys[0], tokens(0));
    }
    expect(store.stats.bytes).toBeLessThanOrEqual(bytes);
    expect(keys.map((key) => store.has(key))).toEqual([true, false, false, true, true]);
  });

  async function readFileSize(): Promise<number> {
    const store = await open({ fingerprint: 'size' });
    await store.write(store.key('', tokens(9)), tokens(9), page(9));
    return store.stats.bytes;
  }

  test('half-written files of a killed process are not pages', async () => {
    const store = await open();
    await store.write(store.key('', tokens(1)), tokens(1), page(1));
    await writeFile(join((await files())[0], '..', `.${'a'.repeat(64)}.1.x.tmp`), 'half');
    expect((await open()).stats.pages).toBe(1);
  });

  test('a disk that refuses costs a page, not an error', async () => {
    const store = await open();
    await rm(directory, { recursive: true });
    const key = store.key('', tokens(1));
    await store.write(key, tokens(1), page(1));
    expect(store.has(key)).toBe(false);
    expect(store.stats.errors).toBe(1);
    await writeFile(directory, ''); // a file where the folder was
    await expect(open()).rejects.toMatchObject({ code: 'FILE_IO' });
  });
});
