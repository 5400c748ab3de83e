/** Downloads into a cache against a hub that misbehaves; whatever happens, a file of the cache is the right one. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { modelName } from '../../src/engine/model-card.ts';
import { Cache } from '../../src/hub/cache.ts';
import {
  cachedModels,
  findCached,
  localModel,
  type PullOptions,
  pull,
  removeCached,
  toReference,
} from '../../src/hub/index.ts';
import { PartialFile } from '../../src/hub/partial-file.ts';
import type { HubSettings } from '../../src/hub/settings.ts';
import { load } from '../../src/index.ts';
import { COMMIT_A, COMMIT_B, type Fault, MockHub, noise, sparse } from './mock-hub.ts';

let hub: MockHub;
let root: string;
let settings: HubSettings;
/** Short pauses; attempts as many as a test's faults may need, which are dealt out over all connections. */
const HTTP = { pauseMs: 1, timeoutMs: 5_000, attempts: 50 };
const SMALL = { segmentBytes: 20_000, recordBytes: 10_000, recordMs: 10_000 };
const Q4 = noise(200_000, 4);
const Q8 = noise(100_001, 8);
const CONFIG = '{"model_type":"x"}';

beforeAll(async () => {
  hub = await MockHub.start();
});
afterAll(() => hub.close());
beforeEach(async () => {
  hub.reset();
  hub.repositories.clear();
  root = await mkdtemp(join(tmpdir(), 'tandem-pull-'));
  settings = { endpoint: hub.endpoint, cache: join(root, 'hub'), offline: false };
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await rm(root, { recursive: true });
});

const get = (name: string, options: PullOptions = {}, more: Partial<HubSettings> = {}) =>
  pull(toReference(name), { ...settings, ...more }, { http: HTTP, ...SMALL, ...options });
const add = () =>
  hub.add('org/m', { 'README.md': 'x', 'm-Q4_0.gguf': Q4, 'Q8_0/m-Q8_0.gguf': Q8, 'mmproj-F16.gguf': noise(9) });
const blobs = async (repository = 'org/m') =>
  readdir(join(new Cache(settings.cache).repositoryFolder(repository), 'blobs'));
const same = async (path: string, bytes: Uint8Array) => expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Faults of requests to the content network, by how many came before. */
const cdnFault = (fault: (n: number) => Fault | undefined) => {
  let n = 0;
  hub.fault = ({ kind }) => (kind === 'cdn' ? fault(n++) : undefined);
};

describe('pull', () => {
  test('one quantization, over several connections, into the layout that other tools know', async () => {
    add();
    const started: unknown[] = [];
    const pulled = await get('org/m:q4_0', { onStart: (plan) => started.push(plan) });
    expect(pulled).toMatchObject({ name: 'org/m:Q4_0', commit: COMMIT_A, bytes: Q4.length, fetched: Q4.length });
    expect(started).toEqual([{ name: 'org/m:Q4_0', files: 1, bytes: Q4.length, missing: Q4.length }]);
    const folder = join(settings.cache, 'models--org--m');
    expect(pulled.path).toBe(join(folder, 'snapshots', COMMIT_A, 'm-Q4_0.gguf'));
    expect(await readlink(pulled.path)).toBe(`../../blobs/${sha256(Q4)}`);
    expect(await readFile(join(folder, 'refs', 'main'), 'utf8')).toBe(COMMIT_A);
    expect(await blobs()).toEqual([sha256(Q4)]);
    await same(pulled.path, Q4);
    expect(hub.fetches.filter(({ kind }) => kind === 'cdn')).toHaveLength(10);
    expect(await readdir(join(settings.cache, '.locks', 'models--org--m'))).toEqual([]);
  });

  test('a file in a folder links back through it; what is there is not fetched again', async () => {
    add();
    const { path } = await get('org/m:Q8_0');
    expect(await readlink(path)).toBe(`../../../blobs/${sha256(Q8)}`);
    hub.reset();
    expect(await get('org/m:Q8_0')).toMatchObject({ path, fetched: 0 });
    expect(hub.sent).toBe(0);
  });

  test('a safetensors model: weights, configuration and tokenizer, small files by their git checksum', async () => {
    hub.add('org/hf', {
      'config.json': CONFIG,
      'tokenizer.json': '{}',
      'model.safetensors': Q8,
      'README.md': 'x',
      'x.bin': 'y',
    });
    const { path, name } = await get('org/hf');
    expect(name).toBe('org/hf:safetensors');
    expect((await readdir(path)).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    await same(join(path, 'config.json'), Buffer.from(CONFIG));
    expect(await localModel('org/hf', settings.cache)).toBe(path);
  });

  test('an empty file is a file', async () => {
    hub.add('org/hf', { 'config.json': CONFIG, 'tokenizer.json': '', 'model.safetensors': Q8 });
    const { path } = await get('org/hf');
    expect((await stat(join(path, 'tokenizer.json'))).size).toBe(0);
  });

  test.each<[string, (n: number) => Fault | undefined]>([
    ['drops connections at random bytes', (n) => (n % 3 === 0 ? undefined : { dropAfter: (n * 7919) % 20_000 })],
    ['sends in tiny pieces', (n) => (n === 0 ? { pieces: 997 } : undefined)],
    ['goes silent', (n) => (n === 2 || n === 5 ? { stallAfter: 5_000 } : undefined)],
    ['says longer lengths', (n) => (n % 4 === 1 ? { lieLength: 10_000_000 } : undefined)],
    [
      'answers 503 and 429 in between',
      (n) => (n % 3 === 1 ? { status: n % 2 ? 503 : 429, headers: { 'retry-after': '0' } } : undefined),
    ],
    ['lets addresses expire', (n) => (n % 5 === 4 ? { status: 403 } : undefined)],
    ['sends one wrong byte once', (n) => (n === 3 ? { corruptAt: 77 } : undefined)],
  ])('a hub that %s gives the right file', async (how, fault) => {
    add();
    cdnFault(fault);
    const notices: string[] = [];
    const http = how === 'goes silent' ? { ...HTTP, timeoutMs: 200 } : HTTP;
    const { path } = await get('org/m:Q4_0', { http, onNotice: (text) => notices.push(text) });
    await same(path, Q4);
    if (how.includes('wrong byte'))
      expect(notices).toEqual(['m-Q4_0.gguf has a wrong checksum; it is dropped and downloaded once more']);
  });

  test('a hub that lets bytes drip is given up', async () => {
    add();
    cdnFault(() => ({ pieces: 1, everyMs: 20 }));
    const notices: string[] = [];
    const http = { ...HTTP, timeoutMs: 500, attempts: 2 };
    await expect(
      get('org/m:Q4_0', { http, connections: 1, onNotice: (text) => notices.push(text) }),
    ).rejects.toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringMatching(/ bytes came .* s, 2 times in a row; try again later; what has come is kept/),
    });
    expect(notices).toEqual([expect.stringMatching(/^(only \d+|no) bytes came (in|for) [\d.]+ s; trying again in/)]);
  });

  test('many connections that wait at once leave no warning', async () => {
    add();
    const warned: string[] = [];
    const listen = (warning: Error) => void warned.push(warning.message);
    process.on('warning', listen);
    cdnFault((n) => (n < 30 ? { status: 503, headers: { 'retry-after': '0.2' } } : undefined));
    await same((await get('org/m:Q4_0', { connections: 30, segmentBytes: 4_000 })).path, Q4);
    await new Promise(setImmediate);
    process.off('warning', listen);
    expect(warned).toEqual([]);
  });

  test('bytes that stay wrong are told, and nothing of them is kept', async () => {
    add();
    cdnFault(() => ({ corruptAt: 7 }));
    await expect(get('org/m:Q4_0')).rejects.toMatchObject({
      code: 'DOWNLOAD_DAMAGED',
      message: expect.stringMatching(
        /^\[hub\] m-Q4_0\.gguf has the checksum.*came twice with another one and was dropped; something on the way/,
      ),
    });
    expect(await blobs()).toEqual([]);
    await expect(localModel('org/m:Q4_0', settings.cache)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });

  test('a listing that says 0 bytes of a file that has some: nothing is named', async () => {
    hub.add('org/m', { 'm-Q4_0.gguf': { size: 0, large: true, etag: sha256(Q4), read: () => new Uint8Array(0) } });
    await expect(get('org/m')).rejects.toMatchObject({
      code: 'DOWNLOAD_DAMAGED',
      message: expect.stringContaining('it has 0 bytes by the same listing'),
    });
    expect(await cachedModels(settings.cache)).toEqual([]);
    expect(await blobs()).toEqual([]);
  });

  test('a blob that somebody removes meanwhile is told, not linked', async () => {
    hub.add('org/m', { 'm-Q8_0-00001-of-00002.gguf': Q8, 'm-Q8_0-00002-of-00002.gguf': Q4 });
    const first = join(settings.cache, 'models--org--m', 'blobs', sha256(Q8));
    hub.onSent = () => void rm(first, { force: true });
    await expect(get('org/m', { connections: 1 })).rejects.toMatchObject({
      code: 'FILE_IO',
      message: expect.stringContaining('m-Q8_0-00001-of-00002.gguf are not there any more'),
    });
    hub.onSent = () => {};
    await same((await get('org/m')).path, Q8);
  });

  test('two names of one file count once', async () => {
    hub.add('org/m', { 'm-Q8_0-00001-of-00002.gguf': Q8, 'm-Q8_0-00002-of-00002.gguf': Q8 });
    const seen: { done: number; total: number }[] = [];
    const { bytes } = await get('org/m', { onProgress: (progress) => seen.push({ ...progress }) });
    expect(bytes).toBe(Q8.length);
    expect(seen.at(-1)).toMatchObject({ done: Q8.length, total: Q8.length });
  });

  test('many at once may name the same files and the same ref', async () => {
    const files = ['a', 'b'].map((path) => ({ path: `${path}.gguf`, size: 1, etag: sha256(Q4) }));
    add();
    await get('org/m:Q4_0');
    const cache = new Cache(settings.cache);
    await Promise.all(Array.from({ length: 12 }, () => cache.link('org/m', COMMIT_B, files, 'next')));
    expect((await readdir(join(settings.cache, 'models--org--m', 'snapshots', COMMIT_B))).sort()).toEqual(['a.gguf', 'b.gguf']); // biome-ignore format: one thought a line
    expect(await cache.commitOf('org/m', 'next')).toBe(COMMIT_B);
  });

  test('wrong lengths and another file behind the name are refused', async () => {
    add();
    cdnFault((n) => (n === 2 ? { lieTotal: 1_000_000 } : undefined));
    await expect(get('org/m:Q4_0')).rejects.toThrow(/the server says 1000000 bytes, they were 200000/);
    hub.fault = ({ kind }) =>
      kind === 'resolve' ? { headers: { 'x-linked-etag': `"${'9'.repeat(64)}"` } } : undefined;
    await expect(get('org/m:Q8_0')).rejects.toThrow(/its etag is 9{64}, it was .*; somebody changed it; start again/);
  });

  test('a truncated partial, a torn journal and foreign words in it cost time, never the file', async () => {
    add();
    await interrupted('org/m:Q4_0', 90_000);
    const partial = join(settings.cache, 'models--org--m', 'blobs', `${sha256(Q4)}.tandem.incomplete`);
    const journal = await readFile(`${partial}.ranges`, 'utf8');
    expect(journal).toMatch(/^tandem-ranges 1 200000\n\d+ \d+\n/);
    await writeFile(`${partial}.ranges`, `${journal}nonsense\n5 99999999999\n\0\0\0\n100 2`);
    const before = hub.sent;
    const { path, fetched } = await get('org/m:Q4_0');
    await same(path, Q4);
    expect(fetched).toBeLessThan(Q4.length);
    expect(hub.sent - before).toBe(fetched);
  });

  test('a journal that lies is found out by the checksum', async () => {
    add();
    await interrupted('org/m:Q4_0', 50_000);
    const partial = join(settings.cache, 'models--org--m', 'blobs', `${sha256(Q4)}.tandem.incomplete`);
    await writeFile(`${partial}.ranges`, 'tandem-ranges 1 200000\n0 200000\n');
    await same((await get('org/m:Q4_0')).path, Q4);
  });

  test('stopped, it goes on where it was', async () => {
    add();
    await interrupted('org/m:Q4_0', 100_000);
    const there = 200_000 - (await missingOf('org/m:Q4_0'));
    expect(there).toBeGreaterThan(20_000);
    hub.reset();
    const progress: number[] = [];
    const { path, fetched } = await get('org/m:Q4_0', { onProgress: ({ done }) => progress.push(done) });
    await same(path, Q4);
    expect(fetched).toBe(200_000 - there);
    expect(hub.sent).toBe(fetched);
    expect([progress[0], progress.at(-1)]).toEqual([there, 200_000]);
  });

  test('two at once: one downloads, the other waits and has it too', async () => {
    add();
    cdnFault(() => ({ pieces: 2_000 }));
    const notices: string[] = [];
    const both = await Promise.all([get('org/m:Q4_0'), get('org/m:Q4_0', { onNotice: (text) => notices.push(text) })]);
    expect(both.map(({ fetched }) => fetched).sort((a, b) => a - b)).toEqual([0, Q4.length]);
    expect(hub.sent).toBe(Q4.length);
    await same(both[0].path, Q4);
  });

  test('a lock of a dead process is taken over, one of a living process is waited for', async () => {
    add();
    const { lock } = new Cache(settings.cache).place('org/m', sha256(Q8));
    await mkdir(join(lock, '..'), { recursive: true });
    await writeFile(lock, JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }));
    await same((await get('org/m:Q8_0')).path, Q8);

    const other = new Cache(settings.cache).place('org/m', sha256(Q4)).lock;
    await writeFile(other, JSON.stringify({ pid: process.pid, host: hostname() }));
    const { path } = await get('org/m:Q4_0', {
      onNotice: (text) => {
        expect(text).toBe(`m-Q4_0.gguf is being downloaded by process ${process.pid}; waiting for it`);
        void rm(other);
      },
    });
    await same(path, Q4);
  });

  test('another commit: the new files come, the same ones do not, both snapshots stay', async () => {
    add();
    await get('org/m:Q4_0');
    hub.add('org/m', { 'm-Q4_0.gguf': Q4, 'm-Q8_0.gguf': Q8 }, { commit: COMMIT_B });
    hub.reset();
    expect(await get('org/m:Q4_0')).toMatchObject({ commit: COMMIT_B, fetched: 0 });
    expect(await readFile(join(settings.cache, 'models--org--m', 'refs', 'main'), 'utf8')).toBe(COMMIT_B);
    expect((await findCached(toReference(`org/m:Q4_0@${COMMIT_A}`), settings.cache)).commit).toBe(COMMIT_A);
  });
});

describe('refusals', () => {
  test('several quantizations: what there is', async () => {
    add();
    await expect(get('org/m')).rejects.toThrow(
      /no quantization was given; org\/m has Q8_0 \(100 kB\), Q4_0 \(200 kB\); org\/m:Q8_0 and so on/,
    );
    expect(hub.sent).toBe(0);
  });

  test('no room: numbers, before anything comes', async () => {
    hub.add('org/big', { 'big-Q4_0.gguf': sparse(new Uint8Array(0), 4e15) });
    await expect(get('org/big')).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringMatching(
        / and 268 MB stay free; org\/big:Q4_0 has 4000000 GB, 4000000 GB are missing, [\d.]+ GB are free at .*; free space/,
      ),
    });
    expect(hub.sent).toBe(0);
  });

  test('no room in the middle: said, and kept for the next time', async () => {
    add();
    const write = PartialFile.prototype.write;
    let left = 120_000;
    vi.spyOn(PartialFile.prototype, 'write').mockImplementation(function (this: PartialFile, bytes, at) {
      left -= bytes.length;
      if (left < 0) return Promise.reject(Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
      return write.call(this, bytes, at);
    });
    await expect(get('org/m:Q4_0')).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringMatching(
        /it is full at m-Q4_0\.gguf \([\d.]+ kB are still to come\); free space \(tandem rm\)/,
      ),
    });
    vi.restoreAllMocks();
    const { path, fetched } = await get('org/m:Q4_0');
    await same(path, Q4);
    expect(fetched).toBeLessThan(Q4.length);
  });

  test('gated: how to get in; with the right token it comes', async () => {
    hub.add('org/gated', { 'm-Q8_0.gguf': Q8 }, { gated: true, token: 'hf_right' });
    await expect(get('org/gated')).rejects.toThrow(/org\/gated is gated.*accept them at .*HF_TOKEN/);
    await expect(get('org/gated', {}, { token: 'hf_wrong' })).rejects.toMatchObject({ code: 'REMOTE_DENIED' });
    await get('org/gated', {}, { token: 'hf_right' });
    expect(hub.log.filter(({ kind, authorization }) => kind === 'cdn' && authorization !== undefined)).toEqual([]);
  });

  test('offline: nothing is asked, what is there is found', async () => {
    add();
    await get('org/m:Q4_0');
    hub.reset();
    await expect(get('org/m:Q8_0', {}, { offline: true })).rejects.toThrow(/offline nothing is asked of a hub/);
    expect(await localModel('org/m:Q4_0', settings.cache)).toMatch(/m-Q4_0\.gguf$/);
    expect(hub.log).toEqual([]);
  });

  test('no model in it', async () => {
    hub.add('org/words', { 'README.md': 'x' });
    await expect(get('org/words')).rejects.toMatchObject({ code: 'FORMAT_UNSUPPORTED' });
  });
});

describe('the cache', () => {
  test('lists what is whole; half a model of another tool is none', async () => {
    add();
    hub.add('org/hf', { 'config.json': CONFIG, 'model.safetensors': Q8 });
    expect(await cachedModels(settings.cache)).toEqual([]);
    await get('org/m:Q4_0');
    await get('org/hf');
    await interrupted('org/m:Q8_0', 50_000);
    const half = join(settings.cache, 'models--org--half', 'snapshots', COMMIT_A);
    await mkdir(half, { recursive: true });
    await writeFile(join(half, 'config.json'), CONFIG);
    await writeFile(join(half, 'model-00001-of-00002.safetensors'), 'x');
    await writeFile(
      join(half, 'model.safetensors.index.json'),
      '{"weight_map":{"a":"model-00001-of-00002.safetensors"}}',
    );
    const models = await cachedModels(settings.cache);
    expect(models.map(({ name, bytes }) => [name, bytes])).toEqual([
      ['org/hf', Q8.length + CONFIG.length],
      ['org/m:Q4_0', Q4.length],
    ]);
    expect(models[1]).toMatchObject({ refs: ['main'], commit: COMMIT_A });
    await expect(findCached(toReference('org/half'), settings.cache)).rejects.toThrow(
      /org\/half is not in the cache; tandem pull org\/half/,
    );
    await expect(findCached(toReference('org/m:Q8_0'), settings.cache)).rejects.toThrow(
      /org\/m:Q8_0 is not in the cache, only Q4_0/,
    );
  });

  test('remembers when a model was used', async () => {
    add();
    await get('org/m:Q4_0');
    const [{ variant }] = await cachedModels(settings.cache);
    const { utimes } = await import('node:fs/promises');
    await utimes(variant.files[0].blob, 1000, 1000);
    expect((await cachedModels(settings.cache))[0].usedAt).toBe(1_000_000);
    await localModel('org/m:Q4_0', settings.cache);
    const [{ usedAt }] = await cachedModels(settings.cache);
    expect(usedAt).toBeGreaterThan(1_000_000);
    expect((await stat(variant.files[0].blob)).mtimeMs).toBe(1_000_000);
  });

  test('removes only what nobody else refers to', async () => {
    hub.add('org/m', { 'a-Q4_0.gguf': Q4, 'a-Q8_0.gguf': Q8, 'b-Q4_0.gguf': Q4 });
    for (const name of ['org/m:a-Q4_0', 'org/m:b-Q4_0', 'org/m:Q8_0']) await get(name);
    const remove = async (name: string) =>
      removeCached('org/m', [(await findCached(toReference(name), settings.cache)).variant.name], settings.cache);
    expect(await remove('org/m:b-Q4_0')).toBe(0); // the bytes are a-Q4_0's too
    expect(await remove('org/m:Q8_0')).toBe(Q8.length);
    await same(await localModel('org/m', settings.cache), Q4);
    expect(await remove('org/m')).toBe(Q4.length);
    expect(await readdir(settings.cache)).toEqual(['.locks']);
    await interrupted('org/m:Q8_0', 50_000);
    expect(await blobs()).toHaveLength(2);
    await removeCached('org/m', undefined, settings.cache);
    expect(await readdir(settings.cache)).toEqual(['.locks']);
  });

  test('a quantization that is removed takes nothing of another download along', async () => {
    hub.add('org/m', { 'a-Q4_0.gguf': Q4, 'b-Q8_0-00001-of-00002.gguf': Q8, 'b-Q8_0-00002-of-00002.gguf': noise(60_000, 9) }); // biome-ignore format: one thought a line
    await get('org/m:Q4_0');
    await interrupted('org/m:Q8_0', 130_000); // the first shard is whole and has no name yet
    const kept = (await blobs()).filter((name) => name !== sha256(Q4));
    expect(kept).toContain(sha256(Q8));
    expect(await removeCached('org/m', ['Q4_0'], settings.cache)).toBe(Q4.length);
    expect(await blobs()).toEqual(kept);
  });

  test('what a link leads to outside of the cache is not removed', async () => {
    add();
    await get('org/m:Q4_0');
    const [outside, folder] = [join(root, 'mine'), join(settings.cache, 'models--org--m')];
    const precious = join(outside, 'precious.gguf');
    await mkdir(outside);
    await writeFile(precious, 'x');
    for (const within of ['blobs', join('snapshots', COMMIT_B), '']) {
      const place = join(folder, within);
      await rename(place, `${place.replace(/\/$/, '')}.aside`).catch(() => {});
      await symlink(outside, place.replace(/\/$/, ''));
      const message = /what is removed lies in the cache; .* leads to .*mine/;
      if (within === '') await mkdir(join(outside, 'blobs'), { recursive: true });
      await expect(removeCached('org/m', undefined, settings.cache)).rejects.toThrow(message);
      expect(await readFile(precious, 'utf8')).toBe('x');
      await rm(place.replace(/\/$/, ''));
      await rename(`${place.replace(/\/$/, '')}.aside`, place).catch(() => {});
    }
    // A single file that is a link out of it loses the link only.
    await symlink(precious, join(folder, 'snapshots', COMMIT_A, 'other-Q8_0.gguf'));
    await removeCached('org/m', undefined, settings.cache);
    expect(await readFile(precious, 'utf8')).toBe('x');
    expect(await readdir(settings.cache)).toEqual(['.locks']);
  });

  test('what is downloaded now is not removed', async () => {
    add();
    await get('org/m:Q4_0');
    cdnFault(() => ({ pieces: 1000 }));
    let removed: Promise<unknown> | undefined;
    hub.onSent = () => void (removed ??= removeCached('org/m', undefined, settings.cache).catch((error) => error));
    await same((await get('org/m:Q8_0')).path, Q8);
    expect(await removed).toMatchObject({ message: expect.stringContaining(`process ${process.pid} downloads org/m`) });
  });

  test('load takes a name that was pulled, and says how to pull one that was not', async () => {
    const jug = await readFile(new URL('../../models/jug/jug-Q8_0.gguf', import.meta.url));
    hub.add('org/jug', { 'jug-Q8_0.gguf': jug });
    vi.stubEnv('HF_HUB_CACHE', settings.cache);
    await expect(load('org/jug:Q8_0')).rejects.toThrow(/org\/jug:Q8_0 is not in the cache; tandem pull org\/jug:Q8_0/);
    const { path } = await get('org/jug:Q8_0', { segmentBytes: 4 << 20, recordBytes: 4 << 20 });
    hub.reset();
    await using engine = await load('org/jug:Q8_0', { backend: 'reference', contextLength: 64 });
    expect(engine.info.model).toBe(path);
    expect([modelName(path), modelName(join(path, '..'))]).toEqual(['jug-Q8_0', 'jug']);
    expect(hub.log).toEqual([]);
  });

  test('a path that is there wins over a name; other texts stay', async () => {
    expect(await localModel(root, settings.cache)).toBe(root);
    expect(await localModel('no/such/path.gguf', settings.cache)).toBe('no/such/path.gguf');
  });
});

/** Begins a pull and stops it after about so many bytes. */
async function interrupted(name: string, bytes: number): Promise<void> {
  const stop = new AbortController();
  cdnFault(() => ({ pieces: 1_000 }));
  const from = hub.sent;
  hub.onSent = (sent) => sent - from >= bytes && stop.abort();
  await expect(get(name, { signal: stop.signal, connections: 3 })).rejects.toMatchObject({ code: 'ABORTED' });
  hub.onSent = () => {};
  hub.fault = () => undefined;
}

async function missingOf(name: string): Promise<number> {
  let missing = Number.NaN;
  const stop = new AbortController();
  const onStart = (plan: { missing: number }) => {
    missing = plan.missing;
    stop.abort();
  };
  await expect(get(name, { onStart, signal: stop.signal })).rejects.toMatchObject({ code: 'ABORTED' });
  return missing;
}
