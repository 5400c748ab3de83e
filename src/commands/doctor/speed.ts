/**
 * Is my speed normal? Some tokens are decoded, the time of each is split by what it went into and held against the
 * memory's read bandwidth, and the counters of the system say what else was going on.
 */
import type { NativeExecutable } from '../../backend/native/backend.ts';
import type { ReadText } from '../../placement/container.ts';
import { GREEDY } from '../../program/batch.ts';
import type { Program, Step } from '../../program/program.ts';
import { modulusFor, tokenIds } from '../bench/token-ids.ts';
import { bytesPerToken } from '../bench/weight-bytes.ts';

export const PARTS = ['attention', 'experts', 'dense layers', 'head', 'sampling', 'rest', 'waiting'] as const;
export type Part = (typeof PARTS)[number];

export interface PartTime {
  readonly milliseconds: number;
  /** Of weights; 0 where it reads none. */
  readonly bytes: number;
}

export interface Speed {
  readonly tokensPerSecond: number;
  /** Of weights, per token. */
  readonly bytes: number;
  /** Of one token; `waiting`: between the steps and around the pass. */
  readonly parts: Readonly<Record<Part, PartTime>>;
  readonly counters: Counters;
}

/** What the system counted meanwhile. */
export interface Counters {
  /** Pages that this process had to read from a disk, per token. */
  readonly pagesFromDisk: number;
  /** Times per second that this process lost its processor to another. */
  readonly preemptions: number;
  /** Share of the machine's time that the hypervisor gave to others, [0, 1]. */
  readonly stolen: number;
  /** Whether the control group stopped it for having used up its share. */
  readonly throttled: boolean;
}

/** What a step's time is counted as. */
export function partOf(program: Program, { op, name, outputs }: Step): Part {
  if (outputs.includes(program.logits)) return 'head';
  if (op === 'sample') return 'sampling';
  if (op === 'attention' || op === 'mla' || op === 'kv-append' || op === 'mla-append' || /self_attn/.test(name))
    return 'attention';
  if (op === 'experts' || op === 'router' || /mlp\.(gate$|shared|experts|router)/.test(name)) return 'experts';
  return op === 'linear' || /\.mlp\b/.test(name) ? 'dense layers' : 'rest';
}

export interface SpeedOptions {
  /** Tokens that stand before the first one measured. */
  readonly prompt: number;
  readonly tokens: number;
  readonly read: ReadText;
  readonly onToken?: (done: number) => void;
}

/** `executable` has pages for `prompt + tokens`, and as many rows as the prompt. */
export async function measureSpeed(executable: NativeExecutable, options: SpeedOptions): Promise<Speed> {
  const { prompt, tokens, read } = options;
  const { program } = executable;
  const ids = tokenIds(prompt + tokens, modulusFor(program.vocabSize));
  const pass = (from: number, to: number) =>
    executable.run({
      tokens: Int32Array.from(ids.slice(from, to)),
      sequences: [{ slot: 0, firstRow: 0, rows: to - from, firstPosition: from, pages: pagesOf(executable) }],
      outputs: [{ row: to - from - 1, sampling: GREEDY }],
      wantLogits: false,
    });
  await pass(0, prompt);
  const before = { steps: executable.timings(), system: readSystem(read), time: performance.now() };
  for (let at = prompt; at < prompt + tokens; at++) {
    await pass(at, at + 1);
    options.onToken?.(at + 1 - prompt);
  }
  const seconds = (performance.now() - before.time) / 1000;
  const after = { steps: executable.timings(), system: readSystem(read) };
  const spent = after.steps.map(({ microseconds }, i) => microseconds - before.steps[i].microseconds);
  const parts = partTimes(program, spent, tokens);
  const inSteps = PARTS.reduce((sum, part) => sum + parts[part].milliseconds, 0);
  parts.waiting = { milliseconds: Math.max(0, (seconds * 1000) / tokens - inSteps), bytes: 0 };
  return {
    tokensPerSecond: tokens / seconds,
    bytes: PARTS.reduce((sum, part) => sum + parts[part].bytes, 0),
    parts,
    counters: difference(before.system, after.system, tokens, seconds),
  };
}

function pagesOf({ pages }: NativeExecutable): Int32Array {
  return Int32Array.from({ length: pages }, (_, page) => page);
}

/** `microseconds`: of every step, over all tokens. */
export function partTimes(program: Program, microseconds: readonly number[], tokens: number): Record<Part, PartTime> {
  const parts = Object.fromEntries(PARTS.map((part) => [part, { milliseconds: 0, bytes: 0 }])) as Record<
    Part,
    PartTime
  >;
  program.steps.forEach((step, i) => {
    const part = partOf(program, step);
    const { milliseconds, bytes } = parts[part];
    parts[part] = {
      milliseconds: milliseconds + microseconds[i] / 1000 / tokens,
      bytes: bytes + bytesPerToken(program, step),
    };
  });
  return parts;
}

interface System {
  readonly pagesFromDisk: number;
  readonly preemptions: number;
  /** Ticks: stolen, of all. */
  readonly stolen: number;
  readonly ticks: number;
  readonly throttled: number;
}

function readSystem(read: ReadText): System {
  const { majorPageFault, involuntaryContextSwitches } = process.resourceUsage();
  const ticks = (/^cpu +(.+)$/m.exec(read('/proc/stat') ?? '')?.[1] ?? '').split(' ').map(Number);
  const stat = read('/sys/fs/cgroup/cpu.stat') ?? read('/sys/fs/cgroup/cpu/cpu.stat') ?? '';
  return {
    pagesFromDisk: majorPageFault,
    preemptions: involuntaryContextSwitches,
    stolen: ticks[7] ?? 0,
    ticks: ticks.slice(0, 8).reduce((sum, n) => sum + n, 0),
    throttled: Number(/^nr_throttled (\d+)/m.exec(stat)?.[1] ?? 0),
  };
}

function difference(before: System, after: System, tokens: number, seconds: number): Counters {
  const ticks = after.ticks - before.ticks;
  return {
    pagesFromDisk: (after.pagesFromDisk - before.pagesFromDisk) / tokens,
    preemptions: (after.preemptions - before.preemptions) / seconds,
    stolen: ticks > 0 ? (after.stolen - before.stolen) / ticks : 0,
    throttled: after.throttled > before.throttled,
  };
}
