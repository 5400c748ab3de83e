/**
 * Batch laws of fast mode: where tiles round to bf16, how a prompt was cut shows in the last digits and nowhere else. The
 * logits stay within the bound of bf16, and the likeliest token differs only where the two best lie within it.
 */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Backend, Executable } from '../../src/backend/backend.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { openCheckpoint } from '../../src/formats/open.ts';
import { buildProgram } from '../../src/models/index.ts';
import { type LowerOptions, lower, type Machine } from '../../src/placement/lower.ts';
import { nativeMachine } from '../../src/placement/machine.ts';
import { tileRule } from '../../src/placement/tiles.ts';
import { tinyProgram } from '../conformance/tiny-program.ts';
import { LIMITS, logitsOf } from './laws.ts';

const LENGTH = 90;
/**
 * Of the root mean square of the logits. A bf16 has 8 bits, so an operand moves by at most 2^-9 of itself; layers of random
 * weights make up to fifty of those out of it in the worst of 90 × 40 logits. An expert chosen otherwise, where two
 * are as good as equal, is more: a tenth of the rows may have one (random ids, many ties).
 */
const BOUND = 2 ** -3;
const ROUTED_OTHERWISE = LENGTH / 10;

interface Subject {
  readonly name: string;
  /** Why it cannot run here. */
  readonly missing?: string;
  make(options: LowerOptions): Promise<Executable>;
}

const closers: (() => Promise<void>)[] = [];

/** Bf16 weights, which exact mode rounds nothing for: what differs is the tiles' rounding of x. */
const JUG = fileURLToPath(new URL('../../models/jug/hf', import.meta.url));

async function jug(backend: Backend, machine: Machine, options: LowerOptions): Promise<Executable> {
  const checkpoint = await openCheckpoint(JUG);
  closers.push(() => checkpoint.close());
  const { program } = await buildProgram(checkpoint);
  return backend.prepare(lower(program, machine, options), checkpoint, LIMITS);
}

function tiny(backend: Backend, machine: Machine, options: LowerOptions): Promise<Executable> {
  const { program, checkpoint } = tinyProgram({ seed: 9, format: 'bf16', kvType: 'bf16', fast: true });
  return backend.prepare(lower(program, machine, options), checkpoint, LIMITS);
}

const here = nativeMachine();
const missing = nativeProblem() && 'needs the native core';
const few: Machine = { device: 'cpu', tiles: (op, format) => tileRule('amx')!(op, format) && 6 };

const SUBJECTS: readonly Subject[] = [
  { name: 'reference, tiles from 6 rows', make: (options) => tiny(referenceBackend(), few, options) },
  { name: 'native, random bf16 program', missing, make: (options) => tiny(nativeBackend(), here, options) },
  { name: 'native, Jug', missing, make: (options) => jug(nativeBackend(), here, options) },
];

describe.each(SUBJECTS)('$name', ({ make, missing }) => {
  describe.skipIf(missing)(`fast laws ${missing ?? ''}`, () => {
    let fast: Executable;
    let exact: Float32Array;
    let size: number;
    beforeAll(async () => {
      {
        await using executable = await make({ exact: true });
        exact = await logitsOf(executable, LENGTH, LENGTH, false);
      }
      size = Math.sqrt(exact.reduce((sum, x) => sum + x * x, 0) / exact.length);
      fast = await make({});
    }, 120_000);
    afterAll(async () => {
      await fast?.dispose();
      for (const close of closers.splice(0)) await close();
    });

    test('the prompt in one piece takes the fast way', async () => {
      expect(await logitsOf(fast, LENGTH, LENGTH, false)).not.toEqual(exact);
    });

    test('the same passes give the same bits again', async () => {
      const once = await logitsOf(fast, LENGTH, LENGTH, false);
      expect(await logitsOf(fast, LENGTH, LENGTH, false)).toEqual(once);
    });

    test.each([
      [LENGTH, false],
      [64, false],
      [40, true],
      [5, true],
    ])('chunks of %i, beside another: %s', async (chunk, neighbour) => {
      const logits = await logitsOf(fast, LENGTH, chunk, neighbour);
      const columns = fast.program.vocabSize;
      const outside: number[] = [];
      for (let row = 0; row < LENGTH; row++) {
        const expected = exact.subarray(row * columns, (row + 1) * columns);
        const actual = logits.subarray(row * columns, (row + 1) * columns);
        const worst = expected.reduce((most, x, i) => Math.max(most, Math.abs(x - actual[i])), 0);
        if (worst >= BOUND * size) {
          outside.push(row);
          continue;
        }
        const best = expected.indexOf(Math.max(...expected));
        const other = actual.indexOf(Math.max(...actual));
        if (other !== best) expect(expected[best] - expected[other], `row ${row}`).toBeLessThan(2 * BOUND * size);
      }
      expect(outside.length, `rows ${outside}`).toBeLessThanOrEqual(ROUTED_OTHERWISE);
    });
  });
});
