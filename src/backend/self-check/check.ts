/**
 * Do the GPUs of this machine compute what the ops say? One step of every kind (kinds.ts) is run where it will run, with the
 * weights, buffers and launches that it will have, over a few passes (passes.ts); some of its outputs are held against the
 * reference by the bound of its op, all of them against being numbers at all. Before anybody else runs a pass.
 */
import { TandemError } from '../../errors.ts';
import type { Checkpoint } from '../../formats/checkpoint.ts';
import { errorRatio, tolerance } from '../../ops/bound.ts';
import { opNamed } from '../../ops/index.ts';
import type { Bound } from '../../ops/op.ts';
import type { Batch } from '../../program/batch.ts';
import type { Program, Step } from '../../program/program.ts';
import type { Value } from '../../program/tensor.ts';
import type { Executable, Stepper } from '../backend.ts';
import type { Limits } from '../check-batch.ts';
import { CheckedCache } from './cache.ts';
import { type ExpectedOutput, expectedOutputs } from './expected.ts';
import { inputsOf, type StepInputs, type ValueData } from './inputs.ts';
import type { StepKind } from './kinds.ts';
import { type CheckPass, type CheckPasses, checkPasses, largeTilesFrom } from './passes.ts';
import { WeightRows } from './weight-rows.ts';

export interface CheckOptions {
  readonly executable: Executable;
  readonly checkpoint: Checkpoint;
  /** What the executable was prepared with. */
  readonly limits: Omit<Limits, 'pages'>;
  /** Kinds of steps of its Program. */
  readonly kinds: readonly StepKind[];
  /** Of the largest GPU: from their number follows when tiles are large. */
  readonly multiprocessors?: number;
  /** Stop at the first that fails (default), or go through all. */
  readonly stopAtFailure?: boolean;
  readonly signal?: AbortSignal;
}

export interface CheckedKind {
  readonly kind: StepKind;
  /** Passes that it was right in. */
  readonly passes: number;
  /** What is wrong, a sentence; undefined: nothing. */
  readonly failure?: string;
}

/** Results in the order of `kinds`; where it stopped at a failure, up to that one. */
export async function checkKinds(options: CheckOptions): Promise<CheckedKind[]> {
  const check = new Check(options);
  await check.run();
  return check.results();
}

/** NATIVE_FAILED, naming the first kind that failed. */
export function refuseFailures(results: readonly CheckedKind[], cards: string): void {
  const failed = results.find(({ failure }) => failure !== undefined);
  if (failed === undefined) return;
  throw new TandemError('NATIVE_FAILED', {
    room: 'backend',
    rule: 'kernels of a GPU compute what the reference does, or it is not used',
    given: `${cards}: ${failed.kind.label}: ${failed.failure}`,
    fix: 'use the CPU (--rules cpu) and report this line with the card and its driver; `tandem doctor --gpu` tries all kernels',
  });
}

class Check {
  readonly #options: CheckOptions;
  readonly #program: Program;
  readonly #weights: WeightRows;
  readonly #passes: CheckPasses;
  /** Rows from which its tiles are large. */
  readonly #large: ReadonlyMap<StepKind, number>;
  readonly #caches = new Map<number, CheckedCache>();
  readonly #found = new Map<StepKind, { passes: number; failure?: string }>();

  constructor(options: CheckOptions) {
    const { executable, checkpoint, limits, kinds, multiprocessors = 1 } = options;
    this.#options = options;
    this.#program = executable.program;
    this.#weights = new WeightRows(this.#program, checkpoint);
    const tiles = kinds.flatMap(({ step }) => this.#program.steps[step].placement?.tiles ?? []);
    const large = kinds.map(({ step }) => largeTilesFrom(this.#program.steps[step], this.#program, multiprocessors));
    const reached = large.filter((rows) => rows !== undefined);
    this.#passes = checkPasses(this.#program, { ...limits, pages: executable.pages }, tiles, reached);
    this.#large = new Map(kinds.map((kind, i) => [kind, large[i] ?? Infinity]));
    for (const { step } of kinds) {
      const { cache } = this.#program.steps[step].attributes;
      if (cache === undefined || this.#caches.has(Number(cache))) continue;
      this.#caches.set(Number(cache), new CheckedCache(this.#program, Number(cache), this.#passes.pages));
    }
  }

  results(): CheckedKind[] {
    return this.#options.kinds.flatMap((kind) => {
      const found = this.#found.get(kind);
      return found ? [{ kind, ...found }] : [];
    });
  }

  async run(): Promise<void> {
    const { history, judged } = this.#passes;
    const { executable } = this.#options;
    if (this.#caches.size > 0)
      for (const batch of history) if (!(await this.#inPass(batch, 'history', (pass) => this.#appendAll(pass)))) return;
    for (const judgedPass of judged)
      if (!(await this.#inPass(judgedPass.batch, judgedPass.name, (pass) => this.#judgeAll(pass, judgedPass)))) return;
    if (executable.readPage) await this.#judgeCaches();
  }

  /** False where it is time to stop. */
  async #inPass(batch: Batch, name: string, work: (pass: Pass) => Promise<boolean>): Promise<boolean> {
    this.#options.signal?.throwIfAborted();
    const stepper = await this.#options.executable.start(batch).catch(messageOf);
    if (typeof stepper === 'string') return this.#refused(name, stepper);
    try {
      return await work({ batch, name, stepper, appended: new Set() });
    } finally {
      await stepper.finish().catch(() => {}); // what went wrong first is told
    }
  }

  /** A pass that does not begin: the kind that broke the device before is known, else it is told of the first. */
  #refused(pass: string, failure: string): false {
    const { kinds } = this.#options;
    const known = kinds.some((kind) => this.#found.get(kind)?.failure !== undefined);
    if (!known && kinds.length > 0) this.#fail(kinds[0], pass, failure);
    return false;
  }

  async #appendAll(pass: Pass): Promise<boolean> {
    for (const kind of this.#options.kinds) {
      const { cache } = this.#program.steps[kind.step].attributes;
      if (cache === undefined) continue;
      const failure = await this.#append(pass, Number(cache)).then(nothing, messageOf);
      if (failure !== undefined && this.#fail(kind, pass.name, failure)) return false;
    }
    return true;
  }

  async #judgeAll(pass: Pass, { large, batch }: CheckPass): Promise<boolean> {
    for (const kind of this.#options.kinds) {
      this.#options.signal?.throwIfAborted();
      if (large && this.#large.get(kind)! > batch.tokens.length) continue;
      if (this.#found.get(kind)?.failure !== undefined) continue;
      const failure = await this.#judge(pass, kind).catch(messageOf);
      if (failure !== undefined && this.#fail(kind, pass.name, failure)) return false;
      if (failure === undefined) this.#found.set(kind, { passes: (this.#found.get(kind)?.passes ?? 0) + 1 });
    }
    return true;
  }

  /** True where nothing more is to be tried. */
  #fail(kind: StepKind, pass: string | undefined, failure: string): boolean {
    const where = pass === undefined ? '' : `${pass}: `;
    this.#found.set(kind, { passes: this.#found.get(kind)?.passes ?? 0, failure: where + failure });
    return this.#options.stopAtFailure ?? true;
  }

  /** What is wrong with a step, or undefined. */
  async #judge(pass: Pass, { step: index }: StepKind): Promise<string | undefined> {
    const step = this.#program.steps[index];
    const { cache } = step.attributes;
    if (cache !== undefined) await this.#append(pass, Number(cache));
    if (step.outputs.length === 0) return undefined; // an append: its pages are looked at in the end
    const { batch, stepper } = pass;
    const inputs = await this.#run(pass, index);
    const actual = await Promise.all(step.outputs.map((id) => stepper.read(id)));
    const kv = cache === undefined ? undefined : this.#caches.get(Number(cache))!.reader;
    const seed = index + batch.tokens.length;
    const expected = await expectedOutputs({
      program: this.#program,
      step,
      batch,
      inputs,
      weights: this.#weights,
      kv,
      seed,
    });
    for (const [i, output] of expected.entries()) {
      const wrong = this.#compare(step, actual[i], output);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  /** Gives a step random inputs and runs it. Outputs are made wrong before, so that what is not written shows. */
  async #run({ batch, stepper }: Pass, index: number): Promise<StepInputs> {
    const { steps, values } = this.#program;
    const step = steps[index];
    const rowsOf = ({ rows }: Value) => (rows === 'T' ? batch.tokens.length : batch.outputs.length);
    const inputs = inputsOf(this.#program, step, rowsOf, index + batch.tokens.length);
    for (const [value, data] of inputs) await stepper.write(value, data);
    for (const id of step.outputs) {
      const size = rowsOf(values[id]) * values[id].columns;
      const wrong = values[id].type === 'i32' ? new Int32Array(size).fill(-1) : new Float32Array(size).fill(Number.NaN);
      await stepper.write(id, wrong);
    }
    await stepper.step(index);
    return inputs;
  }

  /** Runs the append step of a layer's cache, once a pass. */
  async #append(pass: Pass, cache: number): Promise<void> {
    if (pass.appended.has(cache)) return;
    pass.appended.add(cache);
    const index = this.#program.steps.findIndex(
      ({ outputs, attributes }) => outputs.length === 0 && attributes.cache === cache,
    );
    const inputs = await this.#run(pass, index);
    this.#caches.get(cache)!.append(this.#program.steps[index], pass.batch, inputs);
  }

  #compare(
    step: Step,
    actual: ValueData,
    { value, rows, columns, data, magnitude }: ExpectedOutput,
  ): string | undefined {
    const { columns: stride, name } = this.#program.values[value];
    const own = columns?.length ?? stride;
    const place = (i: number) => [rows[Math.floor(i / own)], columns?.[i % own] ?? i % own] as const;
    const picked = data.map((_, i) => {
      const [row, column] = place(i);
      return actual[row * stride + column];
    });
    if (actual instanceof Int32Array) {
      const at = data.findIndex((number, i) => number !== picked[i]);
      return at < 0 ? undefined : `${name} [${place(at).join(', ')}] is ${picked[at]}, not ${data[at]}`;
    }
    const worst = worstOf(opNamed(step.op).bound, picked as Float32Array, data as Float32Array, magnitude);
    if (worst !== undefined) {
      const { index, allowed } = worst;
      return `${name} [${place(index).join(', ')}] is ${picked[index]}, not ${data[index]} ± ${allowed.toPrecision(3)}`;
    }
    const nan = actual.findIndex((number) => Number.isNaN(number));
    if (nan < 0) return undefined;
    return `${name} [${Math.floor(nan / stride)}, ${nan % stride}] was not written, or is no number`;
  }

  /** What lies in the cache, bit by bit. */
  async #judgeCaches(): Promise<void> {
    const { executable, kinds } = this.#options;
    for (const [cache, checked] of this.#caches) {
      const kind = kinds.find(({ step }) => {
        const { outputs, attributes } = this.#program.steps[step];
        return outputs.length === 0 && attributes.cache === cache;
      });
      if (kind === undefined || this.#found.get(kind)?.failure !== undefined) continue;
      const failure = await checked.differs((page) => executable.readPage!(page)).catch(messageOf);
      if (failure !== undefined && this.#fail(kind, undefined, failure)) return;
    }
  }
}

interface Pass {
  readonly batch: Batch;
  readonly name: string;
  readonly stepper: Stepper;
  /** Layers of the cache whose rows of this pass are there. */
  readonly appended: Set<number>;
}

/**
 * Bounds are those of the ops, a little wider: a wrong kernel is wrong by thousands of them, and a card that sums otherwise than
 * anybody saw yet, or misses the last bit of an exact op, is no reason to do without it. Conformance on cards is judged elsewhere.
 */
const SLACK = 8;
const LAST_BITS = 2 ** -20;

/** The element that is furthest outside of what is allowed; undefined: none is. */
function worstOf(bound: Bound, actual: Float32Array, expected: Float32Array, magnitude: Float32Array) {
  let worst: { index: number; allowed: number; ratio: number } | undefined;
  for (let index = 0; index < expected.length; index++) {
    const own = tolerance(bound, expected[index], magnitude[index]);
    const allowed = SLACK * own + LAST_BITS * Math.abs(expected[index]);
    const ratio = errorRatio(bound, actual[index], expected[index], magnitude[index]) * (own / allowed);
    if (!(ratio <= Math.max(1, worst?.ratio ?? 1))) worst = { index, allowed, ratio };
  }
  return worst;
}

function nothing(): undefined {
  return undefined;
}

function messageOf(error: unknown): string {
  if (error instanceof TandemError && error.code === 'ABORTED') throw error;
  return (error instanceof Error ? error.message : String(error)).replace(/^\[\w+\] /, '');
}
