/** What who runs a server relies on: several models in one, room made between them, idleness, readiness, TLS, ports, keys, the end. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import type { Engine } from '../../src/engine/engine.ts';
import { ModelHost, type ModelHostOptions, type ModelSource } from '../../src/server/models.ts';
import { startServer } from '../../src/server/start.ts';
import { build, tandem } from '../cli/tandem.ts';
import { house } from '../engine/house.ts';
import { CARD, serveAnswer } from './fixture.ts';

const never = () => new AbortController().signal;

/** Models of so many bytes each, on a machine of so many; what happened, in order. */
function host(sizes: Record<string, number>, options: Partial<ModelHostOptions> = {}) {
  const events: string[] = [];
  const given: (number | undefined)[] = [];
  const loaded = new Set<Engine>();
  const sources: ModelSource[] = Object.entries(sizes).map(([id, size]) => ({
    card: { ...CARD, id, size },
    aliases: [`${id}-alias`],
    async load(_, memory) {
      given.push(memory);
      await sleep(1);
      const { engine } = house();
      const { dispose } = engine;
      Object.assign(engine, { info: { ...engine.info, weights: size } });
      engine.dispose = (how) => {
        loaded.delete(engine);
        return dispose.call(engine, how);
      };
      loaded.add(engine);
      return engine;
    },
  }));
  const models = new ModelHost(sources, {
    idleMs: 0,
    available: () => Number.POSITIVE_INFINITY,
    told: ({ model, event }) => events.push(`${model} ${event}`),
    ...options,
  });
  return {
    models,
    events,
    given,
    loaded,
    acquire: (name: string) => models.acquire(name, { signal: never(), wait: true }),
  };
}

describe('several models', () => {
  test('are loaded when asked for, found by name and alias, and stay while there is room', async () => {
    const { models, acquire, events } = host({ a: 10, b: 10 }, { memory: 100 });
    for (const name of ['a', 'b-alias', 'a:latest', '', 'b']) (await acquire(name)).release();
    expect(events).toEqual(['a loading', 'a loaded', 'b loading', 'b loaded']);
    expect(models.list().map(({ id, state, loads }) => [id, state, loads])).toEqual([
      ['a', 'ready', 1],
      ['b', 'ready', 1],
    ]);
    await expect(acquire('c')).rejects.toMatchObject({ code: 'MODEL_UNKNOWN' });
    await models.dispose();
  });

  test('the one used longest ago makes room', async () => {
    const { models, acquire, events } = host({ a: 40, b: 40, c: 40 }, { memory: 100 });
    for (const name of ['a', 'b', 'a', 'c', 'b']) {
      (await acquire(name)).release();
      await sleep(2);
    }
    expect(events.filter((event) => event.endsWith('unloaded'))).toEqual(['b unloaded', 'a unloaded']);
    expect(models.list().map(({ state }) => state)).toEqual(['unloaded', 'ready', 'ready']);
    await models.dispose();
  });

  test('what runs ends before its model goes; who asks for that one meanwhile waits for its turn', async () => {
    const { models, acquire, events, loaded } = host({ a: 60, b: 60 }, { memory: 100 });
    const first = await acquire('a');
    const other = acquire('b').then((lease) => {
      events.push('b answers');
      expect(loaded.size).toBe(1);
      return lease;
    });
    await sleep(5);
    const again = acquire('a');
    await sleep(5);
    expect(events).toEqual(['a loading', 'a loaded']);
    await first.engine.generate('x', { maxTokens: 3 }); // nobody took it away
    first.release();
    (await other).release();
    (await again).release();
    expect(events).toEqual([
      ...['a loading', 'a loaded', 'a unloaded', 'b loading', 'b loaded', 'b answers'],
      ...['b unloaded', 'a loading', 'a loaded'],
    ]);
    await models.dispose();
  });

  test('any number of requests for models that do not fit together are all answered', async () => {
    const { models, loaded } = host({ a: 60, b: 60, c: 60 }, { memory: 100 });
    const ask = async (i: number) => {
      const { engine, model, release } = await models.acquire('abc'[(i * 7) % 3], { signal: never(), wait: true });
      expect(loaded).toContain(engine);
      expect(loaded.size).toBe(1);
      const { tokens } = await engine.generate(`${i}`, { maxTokens: 4, temperature: 0 });
      release();
      return `${model.id} ${tokens.length > 0}`;
    };
    const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => ask(i)));
    expect(answers).toEqual(Array.from({ length: 30 }, (_, i) => `${'abc'[(i * 7) % 3]} true`));
    await models.dispose();
    expect(loaded.size).toBe(0);
  });

  test('as many as are allowed, whatever the memory; a model larger than it is loaded alone', async () => {
    const { models, acquire, loaded } = host({ a: 1, b: 1, huge: 1000 }, { memory: 100, maxLoaded: 1 });
    for (const name of ['a', 'b', 'huge', 'a']) {
      (await acquire(name)).release();
      expect(loaded.size).toBe(1);
    }
    expect(models.find('a')).toMatchObject({ state: 'ready', loads: 2 });
    await models.dispose();
  });

  test('what is free now counts too', async () => {
    const { models, acquire, loaded } = host({ a: 10, b: 10 }, { memory: 100, available: () => 5 });
    (await acquire('a')).release();
    (await acquire('b')).release();
    expect(loaded.size).toBe(1);
    await models.dispose();
  });

  test('models that fit together share the memory by size; others get what is left of what was given', async () => {
    const together = host({ a: 30, b: 10 }, { memory: 80 });
    for (const name of ['a', 'b']) (await together.acquire(name)).release();
    expect(together.given).toEqual([60, 20]);
    const apart = host({ a: 70, b: 20, c: 20 }, { memory: 100 });
    for (const name of ['a', 'b']) (await apart.acquire(name)).release();
    expect(apart.given).toEqual([100, 30]);
    const alone = host({ a: 70 });
    (await alone.acquire('a')).release();
    expect(alone.given).toEqual([undefined]);
    for (const { models } of [together, apart, alone]) await models.dispose();
  });

  test('who goes away while waiting leaves nothing behind', async () => {
    const { models, acquire, loaded } = host({ a: 60, b: 60 }, { memory: 100 });
    const held = await acquire('a');
    const gone = new AbortController();
    const waiting = models.acquire('b', { signal: gone.signal, wait: true });
    await sleep(2);
    gone.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(models.acquire('b', { signal: never(), wait: false })).rejects.toMatchObject({
      code: 'MODEL_LOADING',
    });
    held.release();
    (await acquire('b')).release();
    (await acquire('a')).release();
    expect(loaded.size).toBe(1);
    await models.dispose();
  });

  test('a model that cannot be loaded holds up no other, and is tried again', async () => {
    let broken = true;
    const { engine } = house();
    const load = async () => {
      if (broken) throw new Error('no such weights');
      return engine;
    };
    const good = house().engine;
    const models = new ModelHost(
      [
        { card: { ...CARD, id: 'a' }, aliases: [], load },
        { card: { ...CARD, id: 'b' }, aliases: [], load: async () => good },
      ],
      { idleMs: 0 },
    );
    await expect(models.acquire('a', { signal: never(), wait: true })).rejects.toThrow('no such weights');
    expect(models.readiness).toMatchObject({ state: 'failed', model: { id: 'a' } });
    (await models.acquire('b', { signal: never(), wait: true })).release();
    expect(models.readiness).toEqual({ state: 'ready' });
    broken = false;
    (await models.acquire('a', { signal: never(), wait: true })).release();
    await models.dispose();
  });

  test('two of one name are refused', () => {
    const source = { card: CARD, aliases: ['x'], load: async () => house().engine };
    expect(() => new ModelHost([source, { ...source, card: { ...CARD, id: 'x' } }], { idleMs: 0 })).toThrow(
      'two are called x',
    );
  });
});

describe('idleness', () => {
  test('frees a model after its time, not while somebody uses it; the next request loads it again', async () => {
    const { models, acquire, loaded, events } = host({ a: 1 }, { idleMs: 20 });
    const lease = await acquire('a');
    await sleep(60);
    expect(loaded.size).toBe(1);
    expect(models.find('a')?.expiresAt).toBeUndefined();
    const before = Date.now();
    lease.release();
    expect(models.find('a')?.expiresAt).toBeGreaterThanOrEqual(before + 20);
    await expect.poll(() => loaded.size).toBe(0);
    expect(models.readiness).toEqual({ state: 'ready' }); // asked, it would load
    (await acquire('a')).release();
    expect(events.filter((event) => event === 'a loaded')).toHaveLength(2);
    await models.dispose();
  });

  test('a client may say how long: for ever, a while, or only this once', async () => {
    const { models, acquire, loaded } = host({ a: 1 }, { idleMs: 20 });
    (await acquire('a')).release();
    models.keep('a', -1);
    await sleep(60);
    expect([loaded.size, models.find('a')?.expiresAt]).toEqual([1, undefined]);
    models.keep('a', 30);
    await expect.poll(() => loaded.size).toBe(0);
    const lease = await acquire('a');
    models.keep('a', 0);
    await sleep(10);
    expect(loaded.size).toBe(1);
    lease.release();
    await expect.poll(() => loaded.size).toBe(0);
    await models.dispose();
  });
});

describe('sockets', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'tandem-tls-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const file = (name: string) => join(folder, name);

  test('a port that is taken, or none, and addresses of nobody here are told', async () => {
    const server = await serveAnswer('x');
    const { port } = server;
    await expect(serveAnswer('x', { port })).rejects.toThrow(/another program does already; choose another --port/);
    await expect(serveAnswer('x', { port: 70_000 })).rejects.toThrow(/a port is a number up to 65535/);
    await expect(serveAnswer('x', { host: '192.0.2.1' })).rejects.toThrow(/does not have that address/);
    expect((await fetch(`${server.url}/livez`)).status).toBe(200);
    await server.close();
  });

  // Reason of the skip: there is no openssl here to make certificates with.
  const noOpenssl = spawnSync('openssl', ['version']).error !== undefined;
  test.skipIf(noOpenssl)('TLS: files that belong together serve, all others say what is wrong', async () => {
    const make = (name: string) =>
      execFileSync(
        'openssl',
        [
          ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
          ...['-subj', '/CN=localhost', '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`)],
        ],
        { stdio: 'ignore' },
      );
    make('a');
    make('b');
    writeFileSync(file('empty'), '');
    const start = (cert: string, key: string) =>
      serveAnswer('x', { tls: { cert: file(cert), key: file(key) } }).catch((error: Error) => error.message);
    expect(await start('a.pem', 'b.key')).toMatch(/b\.key is not the one of the certificate/);
    expect(await start('a.key', 'a.pem')).toMatch(/a\.key holds no certificate/);
    expect(await start('a.pem', 'empty')).toMatch(/empty holds no private key/);
    expect(await start('nowhere', 'a.key')).toMatch(/nowhere/);
    const server = await start('a.pem', 'a.key');
    if (typeof server === 'string') throw new Error(server);
    expect(server.url).toMatch(/^https:/);
    const status = await new Promise((resolve, reject) => {
      const asked = request(`${server.url}/livez`, { ca: readFileSync(file('a.pem')), servername: 'localhost' });
      asked
        .on('response', (reply) => resolve(reply.resume().statusCode))
        .on('error', reject)
        .end();
    });
    expect(status).toBe(200);
    await server.close();
  });
});

describe('the command', () => {
  beforeAll(() => build());
  const small = fileURLToPath(new URL('../../models/jug/jug-Q8_0.gguf', import.meta.url));

  test.each([
    [['--api-key', ''], /--api-key names a key; it is empty/],
    [['--api-key-file', '/nowhere'], /--api-key-file names a file/],
    [['--tls-cert', 'x'], /TLS takes a certificate and a key/],
    [['--prefix-cache', '/proc/nowhere', '--lazy'], /^\[engine\] .*\/proc\/nowhere/m],
    [['--name', 'x', small, `b=${small}`], /--name and --alias are of one model/],
    [[`a=${small}`, `a=${dirname(small)}/hf`], /each model of a server has names of its own/],
    [['--idle-unload', 'soon'], /--idle-unload.*soon/],
  ])('serve %j says what is wrong and listens nowhere', async (args, message) => {
    const { code, stderr } = await tandem(['serve', '--port', '0', ...args]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/http:\/\/|\n\s+at /);
    expect(code).toBe(1);
  });

  test('models answer to the names they were given, and to those of their files where these tell them apart', async () => {
    const names = async (...models: { name: string; path: string }[]) => {
      const server = await startServer({ models, version: '0', port: 0, lazy: true, logLevel: 'silent' });
      const all = server.models.list().map(({ id, aliases }) => [id, ...aliases]);
      await server.close();
      return all;
    };
    const hf = join(dirname(small), 'hf');
    expect(await names({ name: 'a', path: small }, { name: 'b', path: hf })).toEqual([
      ['a', 'jug-Q8_0'],
      ['b', 'hf'],
    ]);
    expect(await names({ name: 'a', path: small }, { name: 'b', path: small })).toEqual([['a'], ['b']]);
    expect(await names({ name: 'hf', path: hf })).toEqual([['hf']]);
  });

  // Reason of the skip: the native core is not built here (nativeProblem() says why).
  test.skipIf(nativeProblem() !== undefined)(
    'keys of a file let in, are never logged; a signal ends it well',
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'tandem-serve-'));
      writeFileSync(join(folder, 'keys'), 'first-key\n# a comment\n  second-key \n');
      const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
      const flags = [
        '--port',
        '0',
        '--log-level',
        'debug',
        '--api-key-file',
        join(folder, 'keys'),
        '--max-loaded',
        '1',
      ];
      const child: ChildProcess = spawn(process.execPath, [cli, 'serve', small, ...flags], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      const ended = new Promise((resolve) => child.on('close', resolve));
      let said = '';
      child.stderr!.setEncoding('utf8').on('data', (piece: string) => {
        said += piece;
      });
      await expect.poll(() => said).toMatch(/^ready$/m);
      const url = /http:\/\/\S+/.exec(said)![0];
      const ask = (key: string) =>
        fetch(`${url}/v1/completions`, {
          method: 'POST',
          headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
          body: JSON.stringify({ prompt: 'a-secret-prompt', max_tokens: 2 }),
        });
      const statuses = await Promise.all(
        ['first-key', 'second-key', 'wrong-key', '# a comment'].map(async (key) => (await ask(key)).status),
      );
      expect(statuses).toEqual([200, 200, 401, 401]);
      child.kill('SIGTERM');
      expect(await ended).toBe(0);
      expect(said).toContain('/v1/completions');
      expect(said).not.toMatch(/first-key|second-key|wrong-key|a-secret-prompt/);
      rmSync(folder, { recursive: true });
    },
  );
});
