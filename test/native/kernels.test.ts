/** Native passes of which some steps are computed in this process, and steps that compute otherwise where they generate. */
import { afterEach, describe, expect, it } from 'vitest';
import { comparePrograms } from '../../src/backend/compare.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { OPS } from '../../src/ops/index.ts';
import { isReplaceable, type Kernel, registerKernel } from '../../src/ops/kernel.ts';
import { lower } from '../../src/placement/lower.ts';
import { lowerBoth } from '../../src/placement/phases.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { tinyProgram } from '../conformance/tiny-program.ts';

const LIMITS = { pages: 4, maxRows: 128, maxOutputs: 128, threads: 2 };
const { program, checkpoint } = tinyProgram({
  seed: 5,
  format: 'q8_0',
  kvType: 'bf16',
  layers: [
    ['gqa', 'dense'],
    ['mla', 'experts'],
  ],
});
const prefill = batchOf([
  { tokens: Array.from({ length: 70 }, (_, i) => (i * 7) % 40), pages: [2, 0] },
  { tokens: [4, 5], pages: [1] },
]);
const decode = batchOf([
  { tokens: [11], firstPosition: 70, pages: [2, 0] },
  { tokens: [12], firstPosition: 2, pages: [1] },
]);

const forget: (() => void)[] = [];
afterEach(() => {
  for (const each of forget.splice(0)) each();
});
function register(kernel: Kernel): void {
  forget.push(registerKernel(kernel));
}

function placed(...rules: RuleDescription[]) {
  return lowerBoth(program, { device: 'cpu' }, { rules: parseRules(rules) });
}

async function logits(...rules: RuleDescription[]): Promise<Float32Array[]> {
  await using model = await nativeBackend().prepare(placed(...rules), checkpoint, LIMITS);
  return [(await model.run(prefill)).logits!, (await model.run(decode)).logits!];
}

describe.skipIf(nativeProblem())(`kernels ${nativeProblem()?.message ?? ''}`, () => {
  it('every op but sample can be the reference, cache and all, step by step within its bound', async () => {
    const all = placed({
      match: { op: [...OPS.keys()].filter(isReplaceable) },
      place: { kernel: 'reference' },
    });
    expect(all.steps.filter(({ placement }) => placement!.kernel === undefined).map(({ op }) => op)).toEqual([
      'sample',
    ]);
    await using left = await nativeBackend().prepare(all, checkpoint, LIMITS);
    await using right = await referenceBackend({ trackMagnitudes: true }).prepare(all, checkpoint, LIMITS);
    const report = await comparePrograms({ left, right, batches: [prefill, decode], ops: OPS });
    expect(report.firstFailure).toBeUndefined();
    expect(report.tokenDifferences).toBe(0);
    expect(left.description.kernels).toBe(`reference (${all.steps.length - 1} steps)`);
  });

  it.each(['glu', 'kv-append', 'attention', 'mla-append', 'mla', 'router', 'experts', 'embed', 'gather-rows'])(
    'the reference of %s amid native steps gives what native gives, nearly',
    async (op) => {
      const [alone, mixed] = [await logits(), await logits({ match: { op }, place: { kernel: 'reference' } })];
      for (const [pass, values] of mixed.entries()) {
        expect(values.length).toBe(alone[pass].length);
        const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - alone[pass][i])), 0);
        expect(worst, `pass ${pass}`).toBeLessThan(1e-2);
      }
    },
  );

  it('a kernel gets operands, attributes and weights, may take its time, and its numbers count', async () => {
    const seen: string[] = [];
    register({
      name: 'loud-norm',
      op: 'rms-norm',
      async run(context) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        const { rows, columns } = context.matrix(0);
        seen.push(`${context.step.name} ${rows}x${columns} ${context.number('group')} ${context.weight(1).shape}`);
        context.output(0).data.fill(0);
      },
    });
    const [values] = await logits({ match: { name: '^norm$' }, place: { kernel: 'loud-norm' } });
    expect(values.every((value) => value === 0)).toBe(true); // the head sees zeros
    expect(seen).toEqual(['norm 72x64 64 64', 'norm 2x64 64 64']);
  });

  it('a kernel of one phase is not asked in the other', async () => {
    const rows: number[] = [];
    register({
      name: 'counting-add',
      op: 'add',
      run(context) {
        rows.push(context.matrix(0).rows);
        const [a, b] = [context.matrix(0).data, context.matrix(1).data];
        context.output(0).data.forEach((_, i, y) => {
          y[i] = a[i] + b[i];
        });
      },
    });
    const mixed = await logits({ match: { op: 'add' }, decode: { kernel: 'counting-add' } });
    expect(rows).toEqual([2, 2, 2, 2]);
    expect(mixed).toEqual(await logits());
  });

  it('what a kernel throws ends its pass alone', async () => {
    let fails = true;
    register({
      name: 'moody-glu',
      op: 'glu',
      run(context) {
        if (fails) throw new Error('not today');
        OPS.get('glu')!.reference(context);
      },
    });
    const rules = { match: { op: 'glu' }, place: { kernel: 'moody-glu' } };
    await using model = await nativeBackend().prepare(placed(rules), checkpoint, LIMITS);
    await expect(model.run(prefill)).rejects.toThrow('not today');
    fails = false;
    const { logits: after } = await model.run(prefill);
    expect(after!.every(Number.isFinite)).toBe(true);
  });

  it('a kernel that leaves an output out is named', async () => {
    register({ name: 'lazy-glu', op: 'glu', run() {} });
    const rules = { match: { op: 'glu' }, place: { kernel: 'lazy-glu' } };
    await using model = await nativeBackend().prepare(placed(rules), checkpoint, LIMITS);
    await expect(model.run(prefill)).rejects.toThrow(
      'a kernel fills every output of its step; lazy-glu left out layers.0.glu',
    );
  });

  it('cancel is heard in the middle: one of two goes on, without any the kernel is told and the pass ends', async () => {
    let model: Awaited<ReturnType<ReturnType<typeof nativeBackend>['prepare']>>;
    let cancel: readonly number[] = [];
    const after: boolean[] = [];
    register({
      name: 'slow-glu',
      op: 'glu',
      run(context) {
        for (const slot of cancel) model.cancel(slot);
        after.push(context.signal!.aborted);
        OPS.get('glu')!.reference(context);
      },
    });
    const rules = { match: { op: 'glu' }, place: { kernel: 'slow-glu' } };
    model = await nativeBackend().prepare(placed(rules), checkpoint, LIMITS);
    cancel = [1];
    const one = await model.run(prefill);
    expect([one.tokens[0] >= 0, one.tokens.at(-1)]).toEqual([true, -1]);
    cancel = [0, 1];
    const none = await model.run(prefill);
    expect(new Set(none.tokens)).toEqual(new Set([-1]));
    expect(after).toEqual([false, true]);
    cancel = [];
    expect((await model.run(prefill)).tokens.every((token) => token >= 0)).toBe(true);
    await model.dispose();
  });

  it('a kernel that never ends holds up nobody once its pass is cancelled', async () => {
    let stuck = true;
    let begun = () => {};
    const began = new Promise<void>((resolve) => (begun = resolve));
    register({
      name: 'stuck-glu',
      op: 'glu',
      async run(context) {
        begun();
        if (stuck) await new Promise(() => {});
        OPS.get('glu')!.reference(context);
      },
    });
    const rules = placed({ match: { op: 'glu' }, place: { kernel: 'stuck-glu' } });
    await using model = await nativeBackend().prepare(rules, checkpoint, LIMITS);
    const running = model.run(prefill);
    await began;
    for (const { slot } of prefill.sequences) model.cancel(slot);
    expect([...(await running).tokens].every((token) => token === -1)).toBe(true);
    stuck = false;
    expect((await model.run(prefill)).logits!.every(Number.isFinite)).toBe(true);
  });

  it('a kernel may be an object of a class; an output is filled, not replaced', async () => {
    class Counting implements Kernel {
      readonly name = 'counting-glu';
      readonly op = 'glu';
      runs = 0;
      run(context: Parameters<Kernel['run']>[0]) {
        this.runs++;
        OPS.get('glu')!.reference(context);
      }
    }
    const counting = new Counting();
    register(counting);
    await logits({ match: { op: 'glu' }, place: { kernel: 'counting-glu' } });
    expect(counting.runs).toBeGreaterThan(0);
    register({
      name: 'replacing-glu',
      op: 'glu',
      run: (context) => void Object.assign(context.output(0), { data: new Float32Array(3) }),
    });
    await expect(logits({ match: { op: 'glu' }, place: { kernel: 'replacing-glu' } })).rejects.toThrow(/read only/);
  });

  it('a kernel that was forgotten before the model is loaded is refused', async () => {
    const unregister = registerKernel({ name: 'gone-glu', op: 'glu', run() {} });
    const program = placed({ match: { op: 'glu' }, place: { kernel: 'gone-glu' } });
    unregister();
    await expect(nativeBackend().prepare(program, checkpoint, LIMITS)).rejects.toMatchObject({
      code: 'PLACEMENT_IMPOSSIBLE',
    });
  });

  it('steps round as their phase says', async () => {
    const [whole, cut] = [await logits({ place: { activation: 'f32' } }), await logits()];
    const both = await logits({ place: { activation: 'auto' }, decode: { activation: 'f32' } });
    expect(both[0]).toEqual(cut[0]);
    expect(both[1]).not.toEqual(cut[1]);
    expect(both[1]).not.toEqual(whole[1]); // the cache was written rounded
    const rules = parseRules([{ place: { activation: 'auto' }, decode: { activation: 'f32' } }]);
    await using left = await nativeBackend().prepare(
      lowerBoth(program, { device: 'cpu' }, { rules }),
      checkpoint,
      LIMITS,
    );
    const right = await referenceBackend({ trackMagnitudes: true }).prepare(left.program, checkpoint, LIMITS);
    const report = await comparePrograms({ left, right, batches: [prefill, decode], ops: OPS });
    expect(report.firstFailure).toBeUndefined();
  });

  it('a Program that names a device that is not here is refused', async () => {
    process.env.TANDEM_CUDA_LIBRARY = '/nowhere/libcuda.so.1';
    const machine = { device: 'cpu', devices: [{ name: 'cpu' }, { name: 'cuda:0' }] } as const;
    const away = lower(program, machine, { rules: parseRules([{ place: { device: 'cuda:0' } }]) });
    await expect(nativeBackend().prepare(away, checkpoint, LIMITS)).rejects.toThrow('cuda:0 needs an NVIDIA driver');
  });
});
