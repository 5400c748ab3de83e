import { beforeAll, describe, expect, test } from 'vitest';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { referenceBackend } from '../backend/reference.ts';
import { OPS } from '../ops/index.ts';
import type { Program, Step } from '../program/program.ts';
import type { Operand } from '../program/tensor.ts';
import { validateProgram } from '../program/validate.ts';
import { deferralWarning, withDeferredExperts } from './deferred-experts.ts';
import { withExpertsPerToken } from './experts-per-token.ts';
import { buildProgram } from './index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from './public-configs.ts';
import { headerCheckpoint } from './synthesize.ts';

async function programOf(name: PublicModel): Promise<Program> {
  return (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q4_k_m' }))).program;
}

const operandOf = (operand: Operand) => operand as Extract<Operand, { kind: 'value' }>;
const expertsOf = ({ steps }: Program) => steps.filter(({ op }) => op === 'experts');
const isLate = ({ name }: Step) => name.endsWith('.deferred');

/** Columns of the ids that each layer's steps take, in order, and what they are views of. */
function choicesByLayer(program: Program): Map<number, { readonly columns: number[]; readonly values: Set<number> }> {
  const layers = new Map<number, { columns: number[]; values: Set<number> }>();
  for (const step of expertsOf(program)) {
    const found = layers.get(step.layer) ?? { columns: [], values: new Set() };
    layers.set(step.layer, found);
    const [ids, weights] = [operandOf(step.inputs[1]), operandOf(step.inputs[2])];
    expect([weights.start, weights.columns]).toEqual([ids.start, ids.columns]);
    found.values.add(ids.value);
    for (let i = 0; i < ids.columns; i++) found.columns.push(ids.start + i);
  }
  return layers;
}

describe.each(['deepseek-v3', 'qwen3-30b-a3b', 'glm-4.5-air', 'gpt-oss-20b'] as const)('%s', (name) => {
  let whole: Program;
  let chosen: number;
  beforeAll(async () => {
    whole = await programOf(name);
    chosen = operandOf(expertsOf(whole)[0].inputs[1]).columns;
  });

  test('0 is the very same Program', () => {
    expect(withDeferredExperts(whole, 0)).toBe(whole);
    expect(deferralWarning(whole, whole, 0)).toBeUndefined();
  });

  test('every chosen expert is computed once, whatever is deferred; the last layer defers nothing', () => {
    const last = Math.max(...expertsOf(whole).map(({ layer }) => layer));
    for (let count = 1; count < chosen; count++) {
      const deferred = withDeferredExperts(whole, count);
      validateProgram(deferred, OPS);
      const layers = choicesByLayer(deferred);
      expect([...layers.keys()]).toEqual(expertsOf(whole).map(({ layer }) => layer));
      for (const { columns, values } of layers.values()) {
        expect(columns).toEqual(Array.from({ length: chosen }, (_, i) => i));
        expect(values.size).toBe(1);
      }
      const late = expertsOf(deferred).filter(isLate);
      expect(late.map(({ layer }) => layer)).toEqual([...layers.keys()].filter((layer) => layer < last));
      expect(late.every(({ inputs }) => operandOf(inputs[1]).columns === count)).toBe(true);
    }
  });

  test('what is late is added to the next layer’s experts, and to nothing else', () => {
    const deferred = withDeferredExperts(whole, 1);
    const readers = (id: number) =>
      deferred.steps.filter(({ inputs }) => inputs.some((input) => input?.kind === 'value' && input.value === id));
    for (const step of expertsOf(deferred).filter(isLate)) {
      const [sum, ...others] = readers(step.outputs[0]);
      expect(others).toEqual([]);
      expect([sum.op, sum.layer]).toEqual(['add', step.layer + 1]);
      // Whoever read the next layer's experts reads the sum: it has their value.
      const next = expertsOf(whole).find(({ layer }) => layer === step.layer + 1)!;
      expect(sum.outputs).toEqual(next.outputs);
    }
  });

  test('choices are ordered by weight where a correction bias orders them otherwise', () => {
    const biased = whole.steps.some(({ op, inputs }) => op === 'router' && inputs[1]);
    const ranks = withDeferredExperts(whole, 1).steps.filter(({ op }) => op === 'rank-experts');
    expect(ranks.length).toBe(biased ? expertsOf(whole).length - 1 : 0);
  });

  test('so many and no more', () => {
    for (const count of [-1, 0.5, chosen, Number.NaN])
      expect(() => withDeferredExperts(whole, count)).toThrow(
        `deferExperts is a whole number from 0 to ${chosen - 1}: of ${chosen} experts a token one is in time; ${count}`,
      );
    expect(() => withDeferredExperts(withExpertsPerToken(whole, 1), 1)).toThrow(/from 0 to 0/);
    expect(deferralWarning(whole, withDeferredExperts(whole, 1), 1)).toMatch(
      new RegExp(`^1 of the ${chosen} experts of a token come one layer late: .* lossy$`),
    );
  });
});

test('a dense model has none, one layer with experts has nowhere to defer to, nor has one before a dense layer', async () => {
  const dense = await programOf('qwen3-0.6b');
  expect(() => withDeferredExperts(dense, 1)).toThrow(
    /is for models with routed experts; qwen3 has none; leave it out/,
  );
  const apart = tinyProgram({
    seed: 1,
    layers: [
      ['gqa', 'experts'],
      ['gqa', 'dense'],
      ['gqa', 'experts'],
    ],
  }).program;
  expect(withDeferredExperts(apart, 1)).toBe(apart);
});

test('a model whose experts are not simply added is refused', () => {
  const { program } = tinyProgram({
    seed: 1,
    layers: [
      ['gqa', 'experts'],
      ['gqa', 'experts'],
    ],
  });
  const steps = program.steps.map((step) => (step.name === 'layers.0.add_2' ? { ...step, op: 'glu' } : step));
  expect(() => withDeferredExperts({ ...program, steps }, 1)).toThrow(
    /adds? their experts to the residual; in tiny, layers\.0\.add_2 \(glu\) reads layers\.0\.experts/,
  );
});

describe.each(['softmax', 'sigmoid'] as const)('computed, %s', (score) => {
  const { program, checkpoint } = tinyProgram({
    seed: 11,
    score,
    layers: [
      ['gqa', 'experts'],
      ['gqa', 'experts'],
      ['gqa', 'experts'],
    ],
  });
  const deferred = withDeferredExperts(program, 1);

  /** The deferred Program, with each layer's experts once more as a whole beside it. */
  function withProbes(): Program {
    const values = [...deferred.values];
    const steps = deferred.steps.flatMap((step) => {
      if (step.op !== 'experts' || isLate(step)) return [step];
      const [, ids, weights] = program.steps.find(({ name }) => name === step.name)!.inputs;
      const id = values.push({ ...values[step.outputs[0]], id: values.length, name: `probe ${step.layer}` }) - 1;
      const inputs = step.inputs.map((input, operand) => (operand === 1 ? ids : operand === 2 ? weights : input));
      return [step, { ...step, name: `probe ${step.layer}`, inputs, outputs: [id] }];
    });
    return { ...deferred, values, steps };
  }

  test('both parts are the whole, the lighter part is late, and the sums are those of the next layer', async () => {
    const probed = withProbes();
    const idOf = (name: string) => probed.values.find((value) => value.name === name)!.id;
    await using executable = await referenceBackend().prepare(probed, checkpoint, {
      pages: 1,
      maxRows: 8,
      maxOutputs: 8,
    });
    const stepper = await executable.start(batchOf([{ tokens: [3, 1, 4, 1, 5], pages: [0] }]));
    const read = new Map<string, Float32Array | Int32Array>();
    // Buffers are shared, so values are read as soon as they are written.
    for (const [index, step] of probed.steps.entries()) {
      await stepper.step(index);
      for (const id of step.outputs) read.set(probed.values[id].name, (await stepper.read(id)).slice());
    }
    await stepper.finish();
    const of = (name: string) => read.get(probed.values[idOf(name)].name)!;
    for (const layer of [0, 1]) {
      const kept = of(layer === 0 ? 'layers.0.experts' : `layers.${layer}.experts.kept`);
      const late = of(`layers.${layer}.experts.deferred`);
      for (const [i, whole] of of(`probe ${layer}`).entries()) expect(kept[i] + late[i]).toBeCloseTo(whole, 4);
      expect(late.some((x) => x !== 0)).toBe(true);
      const next = of(`layers.${layer + 1}.experts.kept`);
      for (const [i, sum] of of(`layers.${layer + 1}.experts`).entries())
        expect(sum).toBe(Math.fround(next[i] + late[i]));
      const weights = of(score === 'sigmoid' ? `layers.${layer}.experts.rank.weights` : `layers.${layer}.router.1`);
      for (let row = 0; row < 5; row++) expect(weights[2 * row]).toBeGreaterThanOrEqual(weights[2 * row + 1]);
    }
  });

  test('is something else than the model as it is, whatever the chunks', async () => {
    const tokens = [3, 1, 4, 1, 5, 9];
    const logits = async (given: Program, chunks: readonly number[]) => {
      await using executable = await referenceBackend().prepare(given, checkpoint, {
        pages: 1,
        maxRows: 8,
        maxOutputs: 8,
      });
      const rows: number[] = [];
      let first = 0;
      for (const size of chunks) {
        const batch = batchOf([{ tokens: tokens.slice(first, first + size), firstPosition: first, pages: [0] }]);
        rows.push(...(await executable.run({ ...batch, wantLogits: true })).logits!);
        first += size;
      }
      return rows;
    };
    const once = await logits(deferred, [6]);
    expect(await logits(deferred, [1, 1, 1, 1, 1, 1])).toEqual(once);
    expect(await logits(deferred, [4, 2])).toEqual(once);
    expect(await logits(program, [6])).not.toEqual(once);
  });
});
