/** What who runs a server relies on: several models in one, room made between them, idleness, readiness, TLS, ports, keys, the end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Engine } from '../../src/engine/engine.ts';
import { ModelHost, type ModelHostOptions, type ModelSource } from '../../src/server/models.ts';
import { house } from '../engine/house.ts';
import { CARD } from './fixture.ts';

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
    lease.release();
    expect(models.find('a')?.expiresAt).toBeGreaterThan(Date.now());
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
