/**
 * Before GPUs are believed: each kind of step that they compute is checked once on each card (backend/self-check), and one pass as
 * a whole. What was right before, on the same card with the same driver and kernels, is believed (kept-checks.ts).
 */
import type { Executable } from '../backend/backend.ts';
import { knownGpus } from '../backend/native/gpus.ts';
import { checkKinds, refuseFailures } from '../backend/self-check/check.ts';
import { type StepKind, stepKinds } from '../backend/self-check/kinds.ts';
import { largeTilesFrom } from '../backend/self-check/passes.ts';
import { wholePassFailure } from '../backend/self-check/whole-pass.ts';
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { PAGE_TOKENS, type Program } from '../program/program.ts';
import { cardsOf, digest, keepChecks, readChecks } from './kept-checks.ts';

export interface GpuCheckOptions {
  readonly executable: Executable;
  readonly checkpoint: Checkpoint;
  /** What the executable was prepared with. */
  readonly limits: { readonly maxRows: number; readonly maxOutputs: number };
  readonly signal?: AbortSignal;
}

export interface GpuCheck {
  /** Kinds of steps, all of them right. */
  readonly kinds: number;
  /** How many were checked now; the others were before. */
  readonly now: number;
  readonly milliseconds: number;
}

/** Rows of a pass from which more make no difference to most steps. */
const MOST_ROWS = 256;

/** TANDEM_CUDA_CHECK=0: GPUs are believed. `always`: what was right before is checked again. */
export function checkWanted(): 'off' | 'once' | 'always' {
  const said = process.env.TANDEM_CUDA_CHECK;
  return said === '0' ? 'off' : said === 'always' ? 'always' : 'once';
}

/** For people: `24 of 24 kinds of steps in 310 ms`. */
export function describeCheck({ kinds, now, milliseconds }: GpuCheck): string {
  if (now === 0) return `${kinds} of ${kinds} kinds of steps, before`;
  const before = kinds - now > 0 ? `, ${kinds - now} of them before` : '';
  return `${kinds} of ${kinds} kinds of steps in ${Math.round(milliseconds)} ms${before}`;
}

/** NATIVE_FAILED where a kind is wrong, naming it; undefined where no GPU computes, or nobody wants to know. */
export async function checkGpus(options: GpuCheckOptions): Promise<GpuCheck | undefined> {
  const { executable, limits } = options;
  const { program } = executable;
  const kinds = stepKinds(program);
  if (kinds.length === 0 || checkWanted() === 'off') return undefined;
  const started = performance.now();
  const cards = await cardsOf(kinds.map(({ device }) => device));
  const kept = checkWanted() === 'once' ? await readChecks() : {};
  const isOpen = (device: string, what: string) => !kept[cards.get(device)!.key]?.right.includes(what);
  const rows = Math.min(limits.maxRows, executable.pages * PAGE_TOKENS);
  const multiprocessors = multiprocessorsOf(kinds);
  const keyOf = (kind: StepKind) => digestOf(kind, program, rows, multiprocessors);
  const open = kinds.filter((kind) => isOpen(kind.device, keyOf(kind)));
  const pass = digest(['pass', kinds.map(({ key, device, steps }) => [key, device, steps])]);
  const openPass = !hasOwnKernels(program) && [...cards.keys()].some((device) => isOpen(device, pass));
  if (open.length > 0 || openPass) {
    await check(options, open, openPass, [...cards.values()].map(({ name }) => name).join(', '));
    await keepChecks(
      [...cards].map(([device, card]) => ({
        ...card,
        right: [...open.filter((kind) => kind.device === device).map(keyOf), ...(openPass ? [pass] : [])],
      })),
    );
  }
  return { kinds: kinds.length, now: open.length, milliseconds: performance.now() - started };
}

/** Of the kinds of steps of a placed Program, how many were right before; with passes of so many rows. */
export async function checkedBefore(placed: Program, rows: number): Promise<{ kinds: number; known: number }> {
  const kinds = stepKinds(placed);
  if (kinds.length === 0) return { kinds: 0, known: 0 };
  const cards = await cardsOf(kinds.map(({ device }) => device));
  const kept = await readChecks();
  const multiprocessors = multiprocessorsOf(kinds);
  const known = kinds.filter((kind) =>
    kept[cards.get(kind.device)!.key]?.right.includes(digestOf(kind, placed, rows, multiprocessors)),
  );
  return { kinds: kinds.length, known: known.length };
}

/** What is kept of a kind: more rows than a check has make no difference, but where they take large tiles. */
function digestOf({ key, step }: StepKind, program: Program, rows: number, multiprocessors: number): string {
  const large = largeTilesFrom(program.steps[step], program, multiprocessors) ?? Infinity;
  return digest([key, Math.min(rows, MOST_ROWS), large <= Math.min(rows, program.contextLength)]);
}

/** Of the largest of these. */
function multiprocessorsOf(kinds: readonly StepKind[]): number {
  const devices = new Set(kinds.map(({ device }) => device));
  const used = knownGpus().gpus.filter(({ device }) => devices.has(device));
  return Math.max(1, ...used.map(({ multiprocessors }) => multiprocessors));
}

async function check(
  { executable, checkpoint, limits, signal }: GpuCheckOptions,
  kinds: readonly StepKind[],
  wholePass: boolean,
  cards: string,
): Promise<void> {
  try {
    const multiprocessors = multiprocessorsOf(kinds);
    refuseFailures(await checkKinds({ executable, checkpoint, limits, kinds, multiprocessors, signal }), cards);
    const failure = wholePass ? await wholePassFailure({ executable, limits, signal }) : undefined;
    if (failure !== undefined) throw wrongPass(failure, cards);
  } catch (error) {
    throw signal?.aborted ? loadingCancelled(signal) : error;
  }
}

export function loadingCancelled({ reason }: AbortSignal): TandemError {
  return new TandemError('ABORTED', { room: 'engine', rule: 'loading was cancelled', cause: reason });
}

function wrongPass(failure: string, cards: string): TandemError {
  return new TandemError('NATIVE_FAILED', {
    room: 'engine',
    rule: 'a pass over GPUs gives what its steps give one by one, or they are not used',
    given: `${cards}: ${failure}`,
    fix: 'use the CPU (--rules cpu), try TANDEM_CUDA_GRAPHS=0, and report this line with the card and its driver',
  });
}

/** Kernels of users run on this side, and may take their time. */
function hasOwnKernels({ steps }: Program): boolean {
  return steps.some(({ placement }) => placement?.kernel !== undefined || placement?.decode?.kernel !== undefined);
}
