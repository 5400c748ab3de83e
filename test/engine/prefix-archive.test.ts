/** Prefixes that outlive the engine: what a second engine finds on disk gives the same text, and less to compute. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { load } from '../../src/engine/load.ts';
import type { RulesOption } from '../../src/engine/rules.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tandem-prefix-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const prompt = Array.from({ length: 700 }, (_, i) => 10 + ((i * i) % 1400));
const options = { maxTokens: 12, temperature: 0, ignoreEos: true };

async function ask(maxBytes?: number) {
  const engine = await load(undefined, { exact: true, prefixCache: { directory, maxBytes } });
  const { tokens, usage } = await engine.generate(prompt, options);
  const { rows } = engine.stats();
  await engine.dispose();
  return { tokens, rows, cached: usage.cachedTokens };
}

// Reason of the skip: the native core is not built here (nativeProblem() says why).
describe.skipIf(nativeProblem() !== undefined)('prefixes on disk', () => {
  test('a second engine starts where the first one was, with the same text', async () => {
    const first = await ask();
    expect(first.cached).toBe(0);
    const second = await ask();
    expect(second.tokens).toEqual(first.tokens);
    expect(second.cached).toBe(640);
    expect(second.rows).toBe(first.rows - 640);
  });

  test('a damaged page is dropped, what goes before it is used, and the text is the same', async () => {
    const first = await ask();
    const [folder] = await readdir(directory);
    // The page of tokens [128, 192): found by its tokens.
    const wanted = Buffer.from(Int32Array.from(prompt.slice(128, 192)).buffer);
    for (const name of await readdir(join(directory, folder))) {
      const path = join(directory, folder, name);
      const bytes = await readFile(path);
      if (!bytes.includes(wanted)) continue;
      bytes[bytes.length - 1] ^= 255;
      await writeFile(path, bytes);
    }
    const second = await ask();
    expect(second.tokens).toEqual(first.tokens);
    expect(second.cached).toBe(128);
  });

  test('a folder without room is no error', async () => {
    const first = await ask(10);
    const second = await ask(10);
    expect(second.tokens).toEqual(first.tokens);
    expect(second.cached).toBe(0);
  });

  test('other numerics do not use it', async () => {
    await ask();
    const engine = await load(undefined, { exact: true, kvType: 'f32', prefixCache: { directory } });
    expect((await engine.generate(prompt, options)).usage.cachedTokens).toBe(0);
    await engine.dispose();
  });

  test('nor does another placement; one that computes alike does, whatever its reasons', async () => {
    const cached = async (rules: RulesOption) => {
      await using engine = await load(undefined, { exact: true, rules, prefixCache: { directory } });
      return (await engine.generate(prompt, options)).usage.cachedTokens;
    };
    await ask();
    expect(await cached('cpu')).toBe(640);
    expect(await cached([{ match: { op: 'linear' }, place: { activation: 'f32' } }])).toBe(0);
  });
});
