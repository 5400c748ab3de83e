/**
 * Is this machine right? Every fast path against the reference over one text, twice: the whole drifting (how far the
 * logits end up), and in lock-step (each step alone, held to the bound of its op). Exact paths must also give the same bits
 * whatever the shape of their passes.
 */

import type { Backend, Executable } from '../../backend/backend.ts';
import { comparePrograms, type StepReport } from '../../backend/compare.ts';
import { nativeBackend } from '../../backend/native/backend.ts';
import { loadNative } from '../../backend/native/load.ts';
import { referenceBackend } from '../../backend/reference.ts';
import type { Checkpoint } from '../../formats/checkpoint.ts';
import { similarity } from '../../ops/bound.ts';
import { OPS } from '../../ops/index.ts';
import { lower } from '../../placement/lower.ts';
import { nativeMachine } from '../../placement/machine.ts';
import { executionsOf, lowerBoth } from '../../placement/phases.ts';
import type { Rule } from '../../placement/rule.ts';
import type { Program } from '../../program/program.ts';
import { divergence, likeliest } from '../perplexity.ts';
import { alarmOf } from './alarm.ts';
import { byDefinition } from './definition.ts';
import { applies, chunked, pagesFor, rowsFor, runShape } from './passes.ts';
import { pathsOf, type VerifyPath } from './paths.ts';

export interface VerifyOptions {
  readonly program: Program;
  readonly checkpoint: Checkpoint;
  readonly ids: readonly number[];
  /** Default: all of this machine. */
  readonly paths?: readonly VerifyPath[];
  /** How steps compute, as `load` takes them. Default: none. */
  readonly rules?: readonly Rule[];
  /** What is judged. Default: native. */
  readonly backend?: Backend;
  readonly signal?: AbortSignal;
}

export interface VerifyResult {
  readonly path: VerifyPath;
  /** Normalized mean square error of all logits. */
  readonly nmse: number;
  /** What it may be: the alarm of the coarsest rounding in this way. */
  readonly alarm: number;
  /** Kullback–Leibler divergence from the reference per position, nats. */
  readonly meanKl: number;
  readonly worstKl: number;
  /** Share of positions whose likeliest token is the reference's. */
  readonly sameTop: number;
  /** The step nearest to its bound, or furthest outside; undefined where only bits were compared. */
  readonly worstStep?: StepReport;
  /**
   * Rows in which a router chose otherwise than the reference's: in lock-step between scores as good as equal; looked at in
   * the drifting run, too, where its logits went further than the alarm.
   */
  readonly routedOtherwise: number;
  /** Bits equal those of `path.sameBitsAs`; undefined where none is named. */
  readonly sameBits?: boolean;
  /** Why it fails, or undefined. */
  readonly breach?: string;
}

/** Paths that this machine, this Program and this text have. */
export function verifyPaths(program: Program, tokens: number): VerifyPath[] {
  const native = loadNative().machine();
  const hasTiles = (isa: string) =>
    lower(program, nativeMachine(isa)).steps.some(({ placement }) => placement?.tiles !== undefined);
  return pathsOf(native, hasTiles).filter(
    ({ shape }) => (shape.kind === 'chunks' && shape.size > tokens) || applies(shape, tokens),
  );
}

/** Yields each path's result as it is known. */
export async function* verify(options: VerifyOptions): AsyncGenerator<VerifyResult> {
  const { program, ids, paths = verifyPaths(program, ids.length), rules } = options;
  const references = new References(options);
  const bits = new Map<string, Float32Array>();
  for (const path of paths) {
    options.signal?.throwIfAborted();
    const placed = lowerBoth(program, nativeMachine(path.isa), { exact: path.exact, rules });
    const expected = await references.logits(placed, path);
    await using native = await prepare(placed, path, options);
    const logits = await runShape(native, ids, path.shape, options.signal);
    bits.set(path.name, logits);
    const same = path.sameBitsAs === undefined || isPhased(placed) ? undefined : bits.get(path.sameBitsAs);
    const drift = {
      ...compareLogits(logits, expected, program.vocabSize),
      alarm: alarmOf(placed, rowsOf(path, ids.length)),
    };
    // The same bits as a path that was judged step by step need no second judgement.
    const sameBits = same && equalBits(logits, same);
    const steps = sameBits ? undefined : await inSteps(native, placed, path, options, 'locked');
    const far = drift.nmse > drift.alarm && !steps?.worstStep.failed;
    const drifting = far ? await inSteps(native, placed, path, options, 'free') : undefined;
    const routedOtherwise = (drifting ?? steps)?.routedOtherwise ?? 0;
    const result = { path, ...drift, worstStep: steps?.worstStep, routedOtherwise, sameBits };
    yield { ...result, breach: breachOf(result) };
  }
}

function breachOf({ path, nmse, alarm, worstStep, routedOtherwise, sameBits }: VerifyResult): string | undefined {
  if (sameBits === false) return `other bits than ${path.sameBitsAs}`;
  if (worstStep?.failed) return `${worstStep.name} leaves its bound`;
  if (Number.isNaN(nmse)) return 'logits are not numbers';
  // Another expert moves a row more than any rounding; the steps themselves, the routers too, were judged above.
  if (nmse > alarm && routedOtherwise === 0)
    return `logits drift by ${nmse.toExponential(1)}, more than ${alarm.toExponential(0)}`;
  return undefined;
}

function prepare(placed: Program, path: VerifyPath, options: VerifyOptions): Promise<Executable> {
  const { checkpoint, ids, signal, backend = nativeBackend() } = options;
  const rows = rowsFor(ids.length);
  return backend.prepare(placed, checkpoint, {
    pages: pagesFor(ids.length),
    maxRows: rows,
    maxOutputs: rows,
    threads: path.threads,
    isa: path.isa,
    load: path.load,
    signal,
  });
}

/** Most rows of a pass. */
function rowsOf({ shape }: VerifyPath, tokens: number): number {
  return shape.kind === 'chunks' ? Math.min(shape.size, tokens) : rowsFor(tokens);
}

/** By rules a pass of one row computes otherwise than a longer one: its bits are others by design. */
function isPhased({ steps }: Program): boolean {
  return steps.some(({ placement }) => placement?.decode !== undefined);
}

/** The reference's logits, computed once for passes that it rounds alike. */
class References {
  readonly #options: VerifyOptions;
  readonly #known = new Map<string, Float32Array>();

  constructor(options: VerifyOptions) {
    this.#options = options;
  }

  async logits(placed: Program, { exact, shape }: VerifyPath): Promise<Float32Array> {
    const { checkpoint, ids, signal } = this.#options;
    // Exact: no shape changes a bit, so the text goes through whole. Fast: tiles round by the rows of a pass.
    const cut = (exact && !isPhased(placed)) || shape.kind !== 'chunks' ? ids.length : Math.min(shape.size, ids.length);
    const key = `${cut} ${JSON.stringify(executionsOf(placed))}`;
    const known = this.#known.get(key);
    if (known) return known;
    const limits = { pages: pagesFor(ids.length), maxRows: ids.length, maxOutputs: ids.length };
    await using reference = await referenceBackend().prepare(byDefinition(placed), checkpoint, limits);
    const logits = await runShape(reference, ids, { kind: 'chunks', size: cut }, signal);
    this.#known.set(key, logits);
    return logits;
  }
}

/** `locked`: each step by its own bound. `free`: both drift. */
async function inSteps(
  native: Executable,
  placed: Program,
  path: VerifyPath,
  options: VerifyOptions,
  mode: 'locked' | 'free',
) {
  const { checkpoint, ids, signal } = options;
  const size = path.shape.kind === 'chunks' ? Math.min(path.shape.size, ids.length) : ids.length;
  const limits = { pages: pagesFor(ids.length), maxRows: ids.length, maxOutputs: ids.length };
  await using reference = await referenceBackend({ trackMagnitudes: true }).prepare(
    byDefinition(placed),
    checkpoint,
    limits,
  );
  const report = await comparePrograms({
    left: native,
    right: reference,
    batches: chunked(ids, size),
    ops: OPS,
    mode,
    stopAtFailure: mode === 'locked',
    signal,
  });
  const ratio = (step: StepReport) => step.worst?.ratio ?? 0;
  const worstStep = report.firstFailure ?? report.steps.reduce((a, b) => (ratio(b) > ratio(a) ? b : a));
  return { worstStep, routedOtherwise: report.steps.reduce((sum, step) => sum + step.ties, 0) };
}

function compareLogits(actual: Float32Array, expected: Float32Array, vocabSize: number) {
  const positions = expected.length / vocabSize;
  let [sum, worstKl, same] = [0, 0, 0];
  for (let i = 0; i < positions; i++) {
    const mine = actual.subarray(i * vocabSize, (i + 1) * vocabSize);
    const theirs = expected.subarray(i * vocabSize, (i + 1) * vocabSize);
    const kl = divergence(theirs, mine);
    sum += kl;
    worstKl = Math.max(worstKl, kl);
    if (likeliest(mine) === likeliest(theirs)) same++;
  }
  const { nmse } = similarity(actual, expected);
  return { nmse, meanKl: sum / positions, worstKl, sameTop: same / positions };
}

function equalBits(a: Float32Array, b: Float32Array): boolean {
  const [left, right] = [new Uint32Array(a.buffer), new Uint32Array(b.buffer)];
  return left.length === right.length && left.every((word, i) => word === right[i]);
}
