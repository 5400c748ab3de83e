/**
 * Logits of node-llama-cpp on tiny models, as `node bench/oracle.mjs` recorded them (f32 weights and cache): an
 * implementation that shares nothing with this one but the files.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Backend } from '../../src/backend/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { nativeIsas } from '../conformance/harness.ts';
import { floats } from './files.ts';
import { tinyModel } from './make-tiny.ts';
import { IDS, KEPT, ORACLE_CONFIGS } from './oracle-cases.ts';
import { logitsOf, nmse } from './run.ts';

const { isas, reason } = await nativeIsas();
const recorded = JSON.parse(readFileSync('test/golden/oracle.json', 'utf8')) as { models: string[] };
const answers = floats('test/golden/oracle.f32');
const size = answers.length / recorded.models.length;
/** Sums in another order, and GGUF's f32 keys. */
const SAME = 1e-9;

async function disagreement(name: string, backend: Backend, isa?: string): Promise<number> {
  const config = ORACLE_CONFIGS.find(([model]) => model === name)![1];
  await using checkpoint = await opened(config);
  const all = await logitsOf(backend, checkpoint, [IDS], { isa });
  const vocab = all.length / IDS.length;
  const kept = KEPT.flatMap((row) => [...all.subarray(row * vocab, (row + 1) * vocab)]);
  const at = recorded.models.indexOf(name) * size;
  return nmse(Float32Array.from(kept), answers.subarray(at, at + size));
}

async function opened(config: (typeof ORACLE_CONFIGS)[number][1]) {
  const checkpoint = await (await tinyModel(config)).gguf();
  return { ...checkpoint, [Symbol.asyncDispose]: () => checkpoint.close() };
}

test.each(recorded.models)('reference: %s', async (name) => {
  expect(await disagreement(name, referenceBackend())).toBeLessThan(SAME);
});

describe.skipIf(reason)(`native ${reason ?? ''}`, () => {
  describe.each(isas)('%s', (isa) => {
    test.each(recorded.models)('%s', async (name) => {
      const { nativeBackend } = await import('../../src/backend/native/backend.ts');
      expect(await disagreement(name, nativeBackend(), isa)).toBeLessThan(SAME);
    });
  });
});
