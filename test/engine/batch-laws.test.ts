/**
 * Batch laws: what a sequence gives does not depend on its company. Alone, in a batch of 7, prefilled in chunks of
 * 1, 5 and 64, preempted and restarted, resumed from the prefix cache: every sequence draws the same tokens, and the logits of every position are
 * the same bits. One suite for all backends and models, in exact mode; fast-laws.test.ts has what holds in fast mode.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Backend, Executable } from '../../src/backend/backend.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { defaultModelPath } from '../../src/engine/load.ts';
import { openCheckpoint } from '../../src/formats/open.ts';
import { withDeferredExperts } from '../../src/models/deferred-experts.ts';
import { buildProgram } from '../../src/models/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { nativeMachine } from '../../src/placement/machine.ts';
import { type TinyOptions, tinyProgram } from '../conformance/tiny-program.ts';
import { CASES, LIMITS, logitsOf, tokensOf } from './laws.ts';

async function tiny(backend: Backend, options: TinyOptions): Promise<Executable> {
  const { program, checkpoint } = tinyProgram(options);
  return backend.prepare(program, checkpoint, LIMITS);
}

async function jug(backend: Backend, late = 0): Promise<Executable> {
  const checkpoint = await openCheckpoint(defaultModelPath());
  const program = withDeferredExperts((await buildProgram(checkpoint)).program, late);
  const executable = await backend.prepare(lower(program, nativeMachine(), { exact: true }), checkpoint, LIMITS);
  closers.push(() => checkpoint.close());
  return executable;
}
const closers: (() => Promise<void>)[] = [];

/** Not toEqual: telling hundreds of thousands of numbers apart would take minutes. */
function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer).equals(Buffer.from(b.buffer));
}

const SUBJECTS: readonly [name: string, native: boolean, make: () => Promise<Executable>][] = [
  [
    'reference, random q8_0 program, bf16 cache',
    false,
    () => tiny(referenceBackend(), { seed: 6, format: 'q8_0', kvType: 'bf16', fast: true }),
  ],
  ['native, random f32 program', true, () => tiny(nativeBackend(), { seed: 5 })],
  [
    'native, random q4_k program, bf16 cache',
    true,
    () => tiny(nativeBackend(), { seed: 7, format: 'q4_k', kvType: 'bf16', fast: true }),
  ],
  ['native, Jug', true, () => jug(nativeBackend())],
  ['native, Jug with two experts late', true, () => jug(nativeBackend(), 2)],
];

describe.each(SUBJECTS)('%s', (_, native, make) => {
  // Reason of the skip: the native core is not built here (nativeProblem() says why).
  describe.skipIf(native && nativeProblem() !== undefined)('batch laws', () => {
    const all = CASES.map((_, index) => index);
    let executable: Executable;
    const alone: number[][] = [];
    beforeAll(async () => {
      executable = await make();
      for (const index of all) alone.push((await tokensOf(executable, { cases: [index] })).tokens[0]);
    }, 120_000);
    afterAll(async () => {
      await executable?.dispose();
      for (const close of closers.splice(0)) await close();
    });

    test('the texts are texts: not all one token', () => {
      for (const tokens of alone) expect(new Set(tokens).size).toBeGreaterThan(tokens.length > 80 ? 3 : 0);
      expect(alone.map((tokens) => tokens.length)).toEqual(CASES.map(({ prompt, generate }) => prompt + generate));
    });

    test.each([64, 5])('in a batch of 7, chunks of %i', async (chunk) => {
      expect((await tokensOf(executable, { cases: all, chunk })).tokens).toEqual(alone);
    });

    test.each([1, 5, 64])('alone, in chunks of %i', async (chunk) => {
      for (const index of [0, 3])
        expect((await tokensOf(executable, { cases: [index], chunk })).tokens).toEqual([alone[index]]);
    });

    test('preempted and restarted', async () => {
      const order = [1, 5, 2, 0, 3]; // the first starts short and, grown, takes the page of the second
      const { tokens, stats } = await tokensOf(executable, { cases: order, pages: 3 });
      expect(tokens).toEqual(order.map((index) => alone[index]));
      expect(stats.preemptions).toBeGreaterThan(0);
      expect(stats.freePages).toBe(3);
    });

    test('resumed from the prefix cache', async () => {
      const { tokens, stats } = await tokensOf(executable, { cases: all, again: true });
      expect(tokens).toEqual(alone);
      expect(stats.prefixes?.found).toBeGreaterThanOrEqual(128);
    });

    test('logits are the same bits in chunks of 1, 5 and 64, alone and beside another', async () => {
      const whole = await logitsOf(executable, 90, 90, false);
      expect(whole.every(Number.isFinite)).toBe(true);
      for (const [chunk, neighbour] of [
        [1, false],
        [5, true],
        [64, false],
      ] as const)
        expect(sameBits(await logitsOf(executable, 90, chunk, neighbour), whole)).toBe(true);
    });
  });
});
