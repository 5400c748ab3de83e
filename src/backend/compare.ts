/**
 * Runs two executables of one Program in lock-step and says where they part. `left` is judged, `right` is the reference
 * (prepare it with `trackMagnitudes`, so that bounds know the size of their sums).
 *
 * * `locked`: after every step the left's values are copied into the right, so each step is judged alone, by the bound
 *   of its op; integers exactly, but a router may choose otherwise where scores tie within the bound.
 * * `free`: both drift; every step's NMSE and cosine are held against the alarm of its activation format. Experts that
 *   a router near a tie chose otherwise move the rest of the row, which this mode reports and does not excuse.
 */
import { TandemError } from '../errors.ts';
import { similarity, type Worst, worstError } from '../ops/bound.ts';
import type { Op } from '../ops/op.ts';
import type { Batch } from '../program/batch.ts';
import type { ActivationFormat, KvType, Program, Step } from '../program/program.ts';
import type { Executable, Stepper } from './backend.ts';
import { judgeRouter } from './compare-router.ts';
import type { ReferenceStepper } from './reference.ts';
import { streamStarts } from './reference-kv.ts';

/** NMSE above which a drifting value is an alarm, by the coarsest activation format so far (numerics). */
export const ALARMS: Readonly<Record<ActivationFormat, number>> = {
  f32: 1e-10,
  bf16: 1e-5,
  q8_32: 5e-4,
  q8_256: 5e-4,
};

/** The same of a cache of that type: what a value on the other side of a border between two of its numbers does. */
const CACHE_ALARMS: Readonly<Record<KvType, number>> = { f32: 0, bf16: ALARMS.bf16, e4m3: ALARMS.q8_256 };

export interface CompareOptions {
  readonly left: Executable;
  readonly right: Executable;
  /** Passes, in order; the cache carries over. */
  readonly batches: readonly Batch[];
  /** The op table: bounds are the ops' own. */
  readonly ops: ReadonlyMap<string, Op>;
  /** Default `locked`. */
  readonly mode?: 'locked' | 'free';
  readonly onStep?: (report: StepReport) => void;
  readonly signal?: AbortSignal;
  /** Stop at the first failure (default) or go through to the end. */
  readonly stopAtFailure?: boolean;
}

/** The element that is furthest out. */
export interface WorstElement {
  /** Name of the value. */
  readonly value: string;
  readonly row: number;
  readonly column: number;
  readonly left: number;
  readonly right: number;
  /** Largest |left − right| allowed (`free`: the alarm does not look at single elements, NaN). */
  readonly tolerance: number;
  /** |left − right| / tolerance. */
  readonly ratio: number;
}

export interface StepReport {
  readonly batch: number;
  readonly index: number;
  readonly name: string;
  readonly op: string;
  readonly layer: number;
  /** Of the step's float outputs, the worst; 0 and 1 where it has none. */
  readonly nmse: number;
  readonly cosine: number;
  readonly worst?: WorstElement;
  /** Rows in which a router chose another expert within the bound. */
  readonly ties: number;
  readonly failed: boolean;
}

export interface CompareReport {
  readonly mode: 'locked' | 'free';
  readonly steps: readonly StepReport[];
  readonly firstFailure?: StepReport;
  /** Worst NMSE of the steps of each layer (−1: outside the layers). */
  readonly layers: ReadonlyMap<number, number>;
  /** Largest difference of a cache element after an append; undefined where a backend cannot show its cache. */
  readonly kvDifference?: number;
  /** Sampled tokens that differ, over all batches. */
  readonly tokenDifferences: number;
}

export async function comparePrograms(options: CompareOptions): Promise<CompareReport> {
  const { left, right, batches, mode = 'locked', stopAtFailure = true } = options;
  checkSamePrograms(left.program, right.program);
  const steps: StepReport[] = [];
  const layers = new Map<number, number>();
  let kvDifference: number | undefined;
  let tokenDifferences = 0;
  let stopped = false;
  for (let b = 0; b < batches.length && !stopped; b++) {
    const leftPass = await left.start(batches[b]);
    const rightPass: Stepper & Partial<ReferenceStepper> = await startOrEnd(right, batches[b], leftPass);
    let alarm = ALARMS.f32;
    try {
      for (let index = 0; index < left.program.steps.length && !stopped; index++) {
        options.signal?.throwIfAborted();
        const step = left.program.steps[index];
        await Promise.all([leftPass.step(index), rightPass.step(index)]);
        for (const format of [step.placement?.activation, step.placement?.middle])
          if (format) alarm = Math.max(alarm, ALARMS[format]);
        const op = options.ops.get(step.op);
        if (!op) throw unknownOp(step);
        const judgement = await judgeStep({
          op,
          step,
          program: left.program,
          left: leftPass,
          right: rightPass,
          alarm: mode === 'free' ? alarm : undefined,
        });
        const report = { batch: b, index, name: step.name, op: step.op, layer: step.layer, ...judgement };
        steps.push(report);
        layers.set(step.layer, Math.max(layers.get(step.layer) ?? 0, report.nmse));
        options.onStep?.(report);
        if (step.outputs.length === 0 && step.attributes.cache !== undefined) {
          const cache = Number(step.attributes.cache);
          const difference = await cacheDifference(left.program, cache, batches[b], leftPass, rightPass);
          if (difference !== undefined) kvDifference = Math.max(kvDifference ?? 0, difference);
          alarm = Math.max(alarm, CACHE_ALARMS[left.program.kv.type]);
        }
        stopped = report.failed && stopAtFailure;
      }
    } finally {
      const [l, r] = await Promise.all([leftPass.finish(), rightPass.finish()]);
      if (!stopped) tokenDifferences += l.tokens.filter((token, o) => token !== r.tokens[o]).length;
    }
  }
  return {
    mode,
    steps,
    firstFailure: steps.find(({ failed }) => failed),
    layers,
    kvDifference,
    tokenDifferences,
  };
}

/** `y [3, 17] is 1.25, not 1.5 ± 0.001; NMSE 2e-3`. */
export function describeFailure({ worst, nmse }: StepReport): string {
  const place = worst && `${worst.value} [${worst.row}, ${worst.column}] is ${worst.left}, not ${worst.right}`;
  const bound = worst && Number.isFinite(worst.tolerance) ? ` ± ${worst.tolerance.toPrecision(3)}` : '';
  return `${place ? `${place}${bound}; ` : ''}NMSE ${nmse.toPrecision(3)}`;
}

function checkSamePrograms(left: Program, right: Program): void {
  const names = (program: Program) => program.steps.map(({ op, name }) => `${op} ${name}`).join('\n');
  if (names(left) === names(right)) return;
  throw new TandemError('COMPARE_FAILED', {
    room: 'backend',
    rule: 'two executables of one program are compared',
    given: `${left.name} with ${left.steps.length} steps and ${right.name} with ${right.steps.length}`,
    fix: 'prepare both with the same placed program',
  });
}

/** Starts a pass; ends the other one where that fails, so that its executable is free again. */
async function startOrEnd(executable: Executable, batch: Batch, other: Stepper): Promise<Stepper> {
  try {
    return await executable.start(batch);
  } catch (error) {
    await other.finish();
    throw error;
  }
}

function unknownOp(step: Step): TandemError {
  return new TandemError('PROGRAM_INVALID', {
    room: 'backend',
    rule: 'every op compared is in the table',
    given: `step ${step.name} is ${step.op}`,
  });
}

type Judgement = Pick<StepReport, 'nmse' | 'cosine' | 'worst' | 'ties' | 'failed'>;

/** What `judgeStep` looks at. `alarm`: NMSE allowed, where the mode is `free`. */
interface Judged {
  readonly op: Op;
  readonly step: Step;
  readonly program: Program;
  readonly left: Stepper;
  readonly right: Stepper & Partial<ReferenceStepper>;
  readonly alarm: number | undefined;
}

/** Judges all outputs of one step; in `locked` mode the right then has the left's values. */
async function judgeStep(judged: Judged): Promise<Judgement> {
  const { op, step, program, left, right, alarm } = judged;
  const lefts = await Promise.all(step.outputs.map((id) => left.read(id)));
  const rights = await Promise.all(step.outputs.map((id) => right.read(id)));
  const magnitudes = step.outputs.map((id) => right.magnitude?.(id));
  const { ties, failed: routed } =
    step.op === 'router' && alarm === undefined
      ? await judgeRouter({ op, step, program, right, lefts, rights })
      : { ties: differingRows(program, step, lefts, rights), failed: undefined };

  const result = { nmse: 0, cosine: 1, worst: undefined as WorstElement | undefined, ties, failed: routed ?? false };
  step.outputs.forEach((id, index) => {
    const l = lefts[index];
    const r = rights[index];
    if (!(l instanceof Float32Array) || !(r instanceof Float32Array)) {
      if (routed === undefined && alarm === undefined && l.some((value, i) => value !== r[i])) {
        result.failed = true;
        result.worst ??= integerElement(program, id, l, r);
      }
      return;
    }
    const { nmse, cosine } = similarity(l, r);
    const worst = worstError(op.bound, l, r, magnitudes[index]);
    if (!(nmse <= result.nmse)) Object.assign(result, { nmse, cosine });
    if (alarm === undefined ? worst && worst.ratio > 1 : !(nmse <= alarm)) result.failed = true;
    if (worst && !(worst.ratio <= (result.worst?.ratio ?? -1)))
      result.worst = { ...place(program, id, worst.index), ...elementOf(worst, alarm) };
  });
  if (alarm === undefined) await Promise.all(step.outputs.map((id, index) => right.write(id, lefts[index])));
  return result;
}

function place(program: Program, id: number, index: number) {
  const { name, columns } = program.values[id];
  return { value: name, row: Math.floor(index / columns), column: index % columns };
}

function elementOf({ actual, expected, tolerance, ratio }: Worst, alarm: number | undefined) {
  return { left: actual, right: expected, tolerance: alarm === undefined ? tolerance : Number.NaN, ratio };
}

function integerElement(program: Program, id: number, l: ArrayLike<number>, r: ArrayLike<number>): WorstElement {
  let index = 0;
  while (l[index] === r[index]) index++;
  return { ...place(program, id, index), left: l[index], right: r[index], tolerance: 0, ratio: Infinity };
}

/** Rows in which an integer output differs. */
function differingRows(
  program: Program,
  step: Step,
  lefts: readonly ArrayLike<number>[],
  rights: readonly ArrayLike<number>[],
): number {
  const rows = new Set<number>();
  step.outputs.forEach((id, index) => {
    const { type, columns } = program.values[id];
    if (type !== 'i32') return;
    for (let i = 0; i < lefts[index].length; i++)
      if (lefts[index][i] !== rights[index][i]) rows.add(Math.floor(i / columns));
  });
  return rows.size;
}

/** Largest difference between the two caches in what the step appended; undefined where one cannot show its cache. */
async function cacheDifference(
  program: Program,
  cache: number,
  batch: Batch,
  left: Stepper,
  right: Stepper,
): Promise<number | undefined> {
  if (!left.readPage || !right.readPage) return undefined;
  const { pageTokens, layers } = program.kv;
  const starts = streamStarts(program.kv)[cache];
  let difference = 0;
  for (const { firstPosition, rows, pages } of batch.sequences) {
    for (let at = firstPosition; at < firstPosition + rows; at++) {
      const page = pages[Math.floor(at / pageTokens)];
      const [l, r] = await Promise.all([left.readPage(page), right.readPage(page)]);
      layers[cache].streams.forEach(({ heads, width }, stream) => {
        for (let head = 0; head < heads; head++) {
          const start = starts[stream] + (head * pageTokens + (at % pageTokens)) * width;
          for (let i = start; i < start + width; i++) difference = Math.max(difference, Math.abs(l[i] - r[i]));
        }
      });
    }
  }
  return difference;
}
