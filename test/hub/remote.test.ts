/** Models on a hub before any download: listings, headers by range, and a hub that misbehaves. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { metadataArray } from '../../src/formats/gguf-encode.ts';
import { writeGguf } from '../../src/formats/gguf-writer.ts';
import { openUrl } from '../../src/formats/http-source.ts';
import { memorySinkFolder } from '../../src/formats/memory-source.ts';
import { listRepository } from '../../src/hub/listing.ts';
import { findModel, openVariant } from '../../src/hub/remote.ts';
import type { HubSettings } from '../../src/hub/settings.ts';
import { chooseVariant } from '../../src/hub/variants.ts';
import { type Fault, MockHub, noise, sparse } from './mock-hub.ts';

let hub: MockHub;
let settings: HubSettings;
/** Short pauses: what is tested is that there is another attempt. */
const QUICK = { pauseMs: 1, timeoutMs: 500 };
const FILE = noise(300_000);

beforeAll(async () => {
  hub = await MockHub.start();
  settings = { endpoint: hub.endpoint, cache: '/nowhere', offline: false };
});
beforeEach(() => hub.reset());
afterAll(() => hub.close());

describe('listing', () => {
  test('pages are followed, folders left out, checksums kept', async () => {
    const { files } = hub.add(
      'org/pages',
      Object.fromEntries(Array.from({ length: 25 }, (_, i) => [`d/f${i}.json`, `${i}`])),
    );
    hub.pageSize = 10;
    const listing = await listRepository({ repository: 'org/pages' }, settings);
    expect(listing).toMatchObject({ repository: 'org/pages', ref: 'main', commit: 'a'.repeat(40) });
    expect(listing.files).toEqual([...files].map(([path, { size, etag }]) => ({ path, size, etag })));
    expect(hub.log).toHaveLength(4);
  });

  test.each([
    ['a name that leaves the folder', { '../../x.gguf': 'x' }, /a file \{"path":"\.\.\/\.\.\/x\.gguf"/],
    ['an absolute name', { '/etc/x.gguf': 'x' }, /a file \{"path":"\/etc/],
    ['a name that speaks to terminals', { 'x\x1b[31m.gguf': 'x' }, /a file \{"path":"x\\u001b/],
    ['a name of two lines', { 'x\n.gguf': 'x' }, /a file \{"path":"x\\n/],
    ['a name that no disk takes', { [`${'ü'.repeat(128)}.gguf`]: 'x' }, /a file \{"path":"ü/],
  ])('%s is refused', async (_, files, message) => {
    hub.add('org/evil', files);
    await expect(listRepository({ repository: 'org/evil' }, settings)).rejects.toThrow(message);
  });

  test('a next page elsewhere would get the token: refused', async () => {
    hub.add('org/pages', { 'a.json': '1' });
    hub.fault = ({ url }) =>
      url.includes('/tree/') ? { status: 200, headers: { link: `<${hub.cdn}/x>; rel="next"` }, body: '[]' } : undefined;
    await expect(listRepository({ repository: 'org/pages' }, settings)).rejects.toThrow(/a next page at http/);
    hub.fault = ({ url }) =>
      url.includes('/tree/') ? { status: 200, headers: { link: '<http://[x>; rel="next"' }, body: '[]' } : undefined;
    await expect(listRepository({ repository: 'org/pages' }, settings)).rejects.toThrow('a next page at "http://[x"');
  });

  test('gated, private, absent, wrong revision, wrong token: each says what to do', async () => {
    hub.add('org/private', { 'a.json': '1' }, { token: 'hf_right' });
    const list = (repository: string, token?: string, revision?: string) =>
      listRepository({ repository, revision }, { ...settings, token }, QUICK);
    await expect(list('org/none')).rejects.toMatchObject({
      code: 'REMOTE_NOT_FOUND',
      message: expect.stringMatching(/no token was sent; check the name .*set HF_TOKEN/),
    });
    await expect(list('org/private', 'hf_wrong')).rejects.toMatchObject({ code: 'REMOTE_NOT_FOUND' });
    await expect(list('org/private', 'hf_right')).resolves.toMatchObject({ repository: 'org/private' });
    await expect(list('org/private', 'hf_right', 'v9')).rejects.toThrow(/there is no branch, tag or commit v9/);
    hub.fault = () => ({ status: 401 });
    await expect(list('org/private', 'hf_old')).rejects.toThrow(
      /\[hub\] the token is a valid one.*check the name and HF_TOKEN/,
    );
  });

  test('offline nothing is asked', async () => {
    await expect(listRepository({ repository: 'org/a' }, { ...settings, offline: true })).rejects.toThrow(
      /offline nothing is asked/,
    );
    expect(hub.log).toEqual([]);
  });

  test('a hub that is no hub is told', async () => {
    hub.fault = () => ({ status: 200, body: '<html>log in</html>' });
    await expect(listRepository({ repository: 'org/a' }, settings)).rejects.toThrow(/a hub answers in JSON.*<html>/);
    hub.fault = () => ({ status: 200, body: '{}' });
    await expect(listRepository({ repository: 'org/a' }, settings)).rejects.toThrow(/no commit of 40/);
  });

  test('too many requests: waits as long as asked, tells why, gives up where it takes too long', async () => {
    hub.add('org/busy', { 'a.json': '1' });
    const pauses: string[] = [];
    hub.fault = ({ number }) => (number < 2 ? { status: 429, headers: { 'retry-after': '0' } } : undefined);
    await listRepository({ repository: 'org/busy' }, settings, { ...QUICK, onPause: (why) => pauses.push(why) });
    expect(pauses).toEqual(Array(2).fill(expect.stringMatching(/too many requests from here \(429\)/)));
    hub.fault = () => ({ status: 429, headers: { 'retry-after': '3600' } });
    await expect(listRepository({ repository: 'org/busy' }, settings, QUICK)).rejects.toThrow(
      /asks to wait 60 minutes; try again later/,
    );
  });

  test('a server that stays broken, and one that is not there', async () => {
    hub.fault = () => ({ status: 503 });
    await expect(listRepository({ repository: 'org/a' }, settings, { ...QUICK, attempts: 3 })).rejects.toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringMatching(/answers 503, 3 times in a row/),
    });
    const nobody = { ...settings, endpoint: 'http://127.0.0.1:9' };
    await expect(listRepository({ repository: 'org/a' }, nobody, { ...QUICK, attempts: 2 })).rejects.toThrow(
      /cannot be reached \(/,
    );
  });
});

describe('a file by ranges', () => {
  const open = (fault?: (n: number) => Fault | undefined, more = {}) => {
    hub.add('org/file', { 'w.gguf': FILE });
    let fetches = 0;
    hub.fault = ({ kind }) => (kind === 'cdn' ? fault?.(fetches++) : undefined);
    return openUrl(`${hub.endpoint}/org/file/resolve/main/w.gguf`, { ...QUICK, ...more });
  };

  test('reads what is there, small steps from one request', async () => {
    const source = await open();
    expect([source.name, source.size, source.path]).toEqual(['w.gguf', FILE.length, undefined]);
    hub.reset();
    for (let at = 0; at < 60_000; at += 600) expect(await source.read(at, at + 600)).toEqual(FILE.slice(at, at + 600));
    expect(hub.fetches).toHaveLength(1);
    expect(await source.read(65_500, 65_600)).toEqual(FILE.slice(65_500, 65_600));
    expect(Buffer.compare(await source.read(1, FILE.length), FILE.slice(1))).toBe(0);
    expect(await source.read(5, 5)).toEqual(new Uint8Array(0));
    await expect(source.read(0, FILE.length + 1)).rejects.toMatchObject({ code: 'FILE_IO' });
    await source.close();
    await expect(source.read(0, 1)).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  test('the token goes to the hub and not to where it redirects', async () => {
    const source = await open(undefined, { token: 'hf_secret' });
    await source.read(0, 10);
    expect(hub.log.map(({ kind, authorization }) => [kind, authorization])).toEqual([
      ['resolve', 'Bearer hf_secret'],
      ['cdn', undefined],
      ['cdn', undefined], // remembered: the hub is not asked twice
    ]);
  });

  test('an address that has expired is asked for again', async () => {
    const source = await open((n) => (n === 1 ? { status: 403 } : undefined));
    expect(await source.read(0, 10)).toEqual(FILE.slice(0, 10));
    expect(hub.log.map(({ kind }) => kind)).toEqual(['resolve', 'cdn', 'cdn', 'resolve', 'cdn']);
  });

  test.each<[string, Fault]>([
    ['breaks in the middle', { dropAfter: 1000 }],
    ['breaks at once', { dropAfter: 0 }],
    ['goes silent', { stallAfter: 1000 }],
    ['says a longer length than it sends', { lieLength: 1_000_000 }],
    ['is overloaded', { status: 503 }],
    ['has a bad gateway', { status: 502 }],
  ])('a connection that %s goes on where it was', async (_, fault) => {
    const source = await open((n) => (n > 0 && n < 4 ? fault : undefined), { timeoutMs: 100 });
    expect(Buffer.compare(await source.read(0, FILE.length), FILE)).toBe(0);
  });

  test.each<[string, Fault, RegExp]>([
    ['ignores ranges', { ignoreRange: true }, /read in ranges.*got status 200/],
    ['answers another range', { lieStart: 7 }, /got Content-Range "bytes 7-/],
    ['tells another size', { lieTotal: 5_000_000 }, /the server says 5000000 bytes, they were 300000/],
  ])('a server that %s is refused', async (_, fault, message) => {
    const source = await open((n) => (n > 0 ? fault : undefined));
    await expect(source.read(1000, 2000)).rejects.toMatchObject({
      code: 'DOWNLOAD_DAMAGED',
      message: expect.stringMatching(message),
    });
  });

  test('a file that changed meanwhile is refused', async () => {
    const source = await open((n) => (n === 1 ? { status: 403 } : undefined)); // makes it ask the hub again
    hub.add('org/file', { 'w.gguf': noise(FILE.length, 2) });
    await expect(source.read(0, 10)).rejects.toThrow(/its etag is .*; somebody changed it; start again/);
  });

  test('circles of redirects and other schemes end', async () => {
    hub.fault = ({ url }) => ({ status: 302, headers: { location: url } });
    await expect(openUrl(`${hub.endpoint}/a`, QUICK)).rejects.toThrow(/redirects at most 8 times/);
    hub.fault = () => ({ status: 302, headers: { location: 'file:///etc/passwd' } });
    await expect(openUrl(`${hub.endpoint}/a`, QUICK)).rejects.toThrow(
      /http and https addresses; file:\/\/\/etc\/passwd/,
    );
    hub.fault = () => ({ status: 302, headers: { location: 'http://[x' } });
    await expect(openUrl(`${hub.endpoint}/a`, QUICK)).rejects.toThrow('http and https addresses; http://[x');
  });

  test('a signal stops it, also while it waits to try again', async () => {
    const stop = new AbortController();
    hub.fault = () => ({ status: 503 });
    const opening = openUrl(`${hub.endpoint}/a`, { pauseMs: 60_000, signal: stop.signal, onPause: () => stop.abort() });
    await expect(opening).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

describe('a checkpoint by its headers', () => {
  const jug = readFileSync(new URL('../../models/jug/jug-Q8_0.gguf', import.meta.url));

  test('of a 400 GB file a few megabytes travel', async () => {
    const tokens = Array.from({ length: 130_000 }, (_, i) => `token ${i}`);
    const sink = memorySinkFolder();
    await writeGguf(sink, 'm.gguf', {
      metadata: new Map([
        ['general.architecture', { type: 'string', value: 'deepseek2' }],
        ['tokenizer.ggml.tokens', { type: 'array', value: metadataArray('string', tokens) }],
      ]),
      tensors: [{ name: 'w', shape: [1, 32], format: 'q8_0', data: () => [new Uint8Array(34)] }],
    });
    const head = sink.files['m.gguf'];
    hub.add('org/giant', { 'giant-Q8_0.gguf': sparse(head, 400e9) });
    const model = await findModel({ repository: 'org/giant' }, settings);
    const checkpoint = await openVariant(model, chooseVariant('org/giant', model.variants, undefined), settings);
    expect(checkpoint.files[0].size).toBe(400e9);
    expect(checkpoint.metadata.get('tokenizer.ggml.tokens')).toMatchObject({ length: 130_000 });
    expect(hub.sent).toBeLessThan(4 * head.length);
    expect(hub.log.length).toBeLessThan(12);
    await checkpoint.close();
  });

  test('GGUF: the same tensors as on the disk', async () => {
    hub.add('org/jug', { 'Q8_0/jug-Q8_0.gguf': jug });
    const model = await findModel({ repository: 'org/jug' }, settings);
    const checkpoint = await openVariant(model, model.variants[0], settings);
    expect(checkpoint).toMatchObject({ kind: 'gguf', name: 'org/jug:Q8_0/jug-Q8_0.gguf' });
    const [name, { offset, bytes }] = [...checkpoint.tensors][5];
    expect(Buffer.from(await checkpoint.readTensor(name)).equals(jug.subarray(offset, offset + bytes))).toBe(true);
    await checkpoint.close();
  });

  test('safetensors: index, shards, config and tokenizer', async () => {
    const shard = (name: string) => {
      const header = Buffer.from(JSON.stringify({ [name]: { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16] } }));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(header.length));
      return Buffer.concat([length, header, Buffer.alloc(16, 1)]);
    };
    const names = Array.from({ length: 20 }, (_, i) => `model-${String(i + 1).padStart(5, '0')}-of-00020.safetensors`);
    hub.add('org/hf', {
      'config.json': '{"model_type":"x"}',
      'tokenizer.json': '{"model":{}}',
      'model.safetensors.index.json': JSON.stringify({
        weight_map: Object.fromEntries(names.map((file, i) => [`t${i}`, file])),
      }),
      ...Object.fromEntries(names.map((file, i) => [file, shard(`t${i}`)])),
    });
    const model = await findModel({ repository: 'org/hf' }, settings);
    const checkpoint = await openVariant(model, model.variants[0], settings);
    expect([...checkpoint.tensors.keys()]).toEqual(names.map((_, i) => `t${i}`));
    expect(checkpoint.tensors.get('t7')).toMatchObject({ file: 7, shape: [2, 2] });
    expect(checkpoint.config).toEqual({ model_type: 'x' });
    expect(await checkpoint.tokenizerJson?.()).toEqual({ model: {} });
    await checkpoint.close();
  });

  test('gated: the list is there, the files are not', async () => {
    hub.add('org/gated', { 'jug-Q8_0.gguf': jug }, { gated: true, token: 'hf_right' });
    const model = await findModel({ repository: 'org/gated' }, settings);
    const open = (token?: string) => openVariant(model, model.variants[0], { ...settings, token }, QUICK);
    await expect(open()).rejects.toMatchObject({
      code: 'REMOTE_DENIED',
      message: expect.stringMatching(/org\/gated is gated.*no token was sent; accept them at .*set HF_TOKEN/),
    });
    await expect(open('hf_wrong')).rejects.toThrow(/gated.*with the account of this token/);
    await (await open('hf_right')).close();
  });
});
