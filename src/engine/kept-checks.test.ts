import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checksPath, keepChecks, readChecks } from './kept-checks.ts';

describe('checks of GPUs that are kept', () => {
  const before = process.env.XDG_CACHE_HOME;
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tandem-checks-'));
    process.env.XDG_CACHE_HOME = folder;
  });
  afterEach(() => {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    rmSync(folder, { recursive: true, force: true });
  });

  it('add up by card, each once', async () => {
    expect(await readChecks()).toEqual({});
    await keepChecks([{ key: 'a', name: 'cuda:0 A', right: ['one', 'two'] }]);
    await keepChecks([
      { key: 'a', name: 'cuda:0 A', right: ['two', 'three'] },
      { key: 'b', name: 'cuda:1 B', right: ['one'] },
    ]);
    const kept = await readChecks();
    expect(kept.a).toEqual({ name: 'cuda:0 A', at: expect.any(String), right: ['one', 'two', 'three'] });
    expect(kept.b.right).toEqual(['one']);
  });

  it('the latest cards stay', async () => {
    for (let i = 0; i < 20; i++) await keepChecks([{ key: `card ${i}`, name: '', right: ['one'] }]);
    await keepChecks([{ key: 'card 10', name: '', right: ['two'] }]);
    const keys = Object.keys(await readChecks());
    expect(keys).toHaveLength(16);
    expect([keys[0], keys[15]]).toEqual(['card 4', 'card 10']);
  });

  it('what is damaged, or cannot be written, is no error', async () => {
    mkdirSync(dirname(checksPath()), { recursive: true });
    for (const text of ['{"a": 3', 'null', '[1]', '{"a": {"right": 7}, "b": 1}']) {
      writeFileSync(checksPath(), text);
      expect(await readChecks()).toEqual({});
    }
    writeFileSync(join(folder, 'file'), '');
    process.env.XDG_CACHE_HOME = join(folder, 'file', 'below');
    await keepChecks([{ key: 'a', name: '', right: ['one'] }]);
    expect(await readChecks()).toEqual({});
  });
});
