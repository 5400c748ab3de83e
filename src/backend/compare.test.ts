import { describe, expect, it } from 'vitest';
import { random } from '../../test/conformance/random.ts';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { TINY_VOCABULARY, tinyProgram } from '../../test/conformance/tiny-program.ts';
import { OPS, opNamed } from '../ops/index.ts';
import { type Routing, routerChoices, routerIds, routerScores } from '../ops/routing.ts';
import type { Program } from '../program/program.ts';
import type { Executable, Stepper } from './backend.ts';
import { type CompareOptions, comparePrograms, describeFailure } from './compare.ts';
import { isChoiceWithin } from './compare-router.ts';
import { referenceBackend } from './reference.ts';

const LIMITS = { pages: 8, maxRows: 64, maxOutputs: 64 };
const { program, checkpoint } = tinyProgram({ seed: 2, kvType: 'bf16' });
const next = random(9);
const prompt = Array.from({ length: 12 }, () => Math.floor(next() * TINY_VOCABULARY));
const batches = [
  batchOf([{ tokens: prompt, pages: [2] }]),
  batchOf([{ tokens: [7], firstPosition: 12, pages: [2], outputs: 'last' }]),
];

const reference = () => referenceBackend({ trackMagnitudes: true }).prepare(program, checkpoint, LIMITS);

type Data = Float32Array | Int32Array;

/** A backend with a bug: what one step writes is spoilt as it is read. */
async function spoilt(name: string, output: number, spoil: (data: Data) => void): Promise<Executable> {
  const inner = await reference();
  const index = program.steps.findIndex((step) => step.name === name);
  const id = program.steps[index].outputs[output];
  return {
    program,
    pages: inner.pages,
    description: inner.description,
    run: (batch) => inner.run(batch),
    cancel: (slot) => inner.cancel(slot),
    dispose: () => inner.dispose(),
    [Symbol.asyncDispose]: () => inner.dispose(),
    async start(batch): Promise<Stepper> {
      const stepper = await inner.start(batch);
      return {
        ...stepper,
        async step(at) {
          await stepper.step(at);
          if (at !== index) return;
          const data = await stepper.read(id);
          spoil(data);
          await stepper.write(id, data);
        },
      };
    },
  };
}

async function compare(left: Executable, change: Partial<CompareOptions> = {}) {
  return comparePrograms({ left, right: await reference(), batches, ops: OPS, ...change });
}

describe('comparing', () => {
  it.each(['locked', 'free'] as const)('the same backend twice: nothing differs (%s)', async (mode) => {
    const seen: string[] = [];
    const report = await compare(await reference(), { mode, onStep: ({ name }) => seen.push(name) });
    expect(report.firstFailure).toBeUndefined();
    expect(report.kvDifference).toBe(0);
    expect(report.tokenDifferences).toBe(0);
    expect(seen).toEqual([...program.steps, ...program.steps].map(({ name }) => name));
    expect([...report.layers.values()]).toEqual([0, 0, 0]);
  });

  it('locked: names the step, the value and the element that is off, and only that step', async () => {
    const left = await spoilt('layers.1.o', 0, (data) => {
      data[64 * 3 + 5] += 0.01;
    });
    const report = await compare(left, { stopAtFailure: false });
    expect(report.firstFailure).toMatchObject({ name: 'layers.1.o', op: 'linear', layer: 1, batch: 0 });
    expect(report.firstFailure?.worst).toMatchObject({ value: 'layers.1.o', row: 3, column: 5 });
    expect(report.steps.filter(({ failed }) => failed).map(({ name }) => name)).toEqual(['layers.1.o']);
    expect(describeFailure(report.firstFailure!)).toMatch(/layers\.1\.o \[3, 5\] is .* ± .*NMSE/);
  });

  it('locked: a NaN and a wrong token are failures too', async () => {
    const nan = await spoilt('layers.0.add_2', 0, (data) => {
      data[0] = Number.NaN;
    });
    expect((await compare(nan)).firstFailure).toMatchObject({ name: 'layers.0.add_2', worst: { ratio: Infinity } });
    const token = await spoilt('sample', 0, (data) => {
      data[0] = (data[0] + 1) % TINY_VOCABULARY;
    });
    expect((await compare(token)).firstFailure).toMatchObject({ name: 'sample', worst: { row: 0, column: 0 } });
  });

  it('free: drift below the alarm passes, above it fails', async () => {
    const small = await spoilt('layers.0.q', 0, (data) => data.set(data.map((x) => x * (1 + 1e-6))));
    expect((await compare(small, { mode: 'free' })).firstFailure).toBeUndefined();
    const large = await spoilt('layers.0.q', 0, (data) => data.set(data.map((x) => x * 1.1)));
    const report = await compare(large, { mode: 'free' });
    expect(report.firstFailure?.name).toBe('layers.0.q');
    expect(report.firstFailure?.nmse).toBeCloseTo(0.01, 4);
  });

  it('a router that takes another expert without a tie fails', async () => {
    const left = await spoilt('layers.1.router', 0, (data) => data.reverse());
    expect((await compare(left)).firstFailure?.name).toBe('layers.1.router');
  });

  it('refuses two different programs', async () => {
    const other: Program = { ...program, steps: program.steps.slice(0, -1) };
    const right = await referenceBackend().prepare(other, checkpoint, LIMITS);
    await expect(compare(await reference(), { right })).rejects.toMatchObject({ code: 'COMPARE_FAILED' });
  });
});

describe('choices of a router', () => {
  const routing: Routing = {
    topk: 2,
    score: 'sigmoid',
    groups: 2,
    groupTopk: 1,
    groupScore: 'top2',
    normalize: true,
    scale: 1,
  };
  const within = (ids: number[], logits: number[], change: Partial<Routing> = {}) => {
    const row = Float32Array.from(logits);
    const choices = routerChoices(routerScores(row, 'sigmoid'), undefined);
    return isChoiceWithin(ids, row, choices, { ...routing, ...change }, opNamed('router'));
  };
  const tie = 1 + 2 ** -23;

  it('may swap what ties, nothing else', () => {
    expect(within([1, 0], [1, tie, -1, 0.5, 0, 0])).toBe(true);
    expect(within([0, 1], [1, tie, -1, 0.5, 0, 0])).toBe(true);
    expect(within([0, 1], [1, 1.01, -1, 0.5, 0, 0])).toBe(false);
    expect(within([1, 2], [1, tie, -1, 0.5, 0, 0])).toBe(false);
    expect(within([1, 1], [1, 1, 0, 0, 0, 0])).toBe(false);
    expect(within([1, 6], [1, 1, 0, 0, 0, 0])).toBe(false);
  });

  it('may take another group where group scores tie', () => {
    expect(within([3, 4], [1, 0.5, -1, tie, 0.5, -2])).toBe(true);
    expect(within([0, 3], [1, 0.5, -1, tie, 0.5, -2])).toBe(false);
    expect(within([3, 4], [1, 0.6, -1, 1, 0.5, -2])).toBe(false);
  });

  it('accepts what the reference itself chooses', () => {
    const draw = random(3);
    for (let i = 0; i < 300; i++) {
      const logits = Float32Array.from({ length: 12 }, () => Math.round(draw() * 8) / 2 - 2);
      for (const change of [{ groups: 4, groupTopk: 2, topk: 4 }, { groups: 1 }, { groupScore: 'max' as const }]) {
        const all = { ...routing, ...change };
        const choices = routerChoices(routerScores(logits, 'sigmoid'), undefined);
        expect(isChoiceWithin(routerIds(choices, all), logits, choices, all, opNamed('router'))).toBe(true);
      }
    }
  });
});
