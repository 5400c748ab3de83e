/**
 * `tandem bench ops`: where the time of a pass goes, op by op, as the backend counts it: a prompt in passes of at most 512
 * rows, then single tokens.
 */
import { basename } from 'node:path';
import type { Command } from 'commander';
import { type NativeExecutable, nativeBackend } from '../../backend/native/backend.ts';
import { openCheckpoint } from '../../formats/open.ts';
import { buildProgram } from '../../models/index.ts';
import { lower } from '../../placement/lower.ts';
import { nativeMachine } from '../../placement/machine.ts';
import { PAGE_TOKENS, type Program } from '../../program/program.ts';
import { localPath } from '../model-name.ts';
import { MODEL, positive, withCpu, withModelPath } from '../options.ts';
import { formatRate, table } from '../terminal.ts';
import { describeMachine, type ReportFlags, report, withReport } from './report.ts';
import { modulusFor, tokenIds } from './token-ids.ts';
import { bytesPerToken } from './weight-bytes.ts';

interface Flags extends ReportFlags {
  model?: string;
  prompt: number;
  generate: number;
  threads?: number;
  isa?: string;
  exact?: boolean;
}

/** All steps of one op in a phase. */
export interface OpTime {
  readonly op: string;
  /** Steps of the Program. */
  readonly steps: number;
  /** Of the whole prompt, or of one generated token. */
  readonly milliseconds: number;
  /** Of all ops, [0, 1]. */
  readonly share: number;
  /** Decode only: weights read per time. */
  readonly gigabytesPerSecond?: number;
}

const MOST_ROWS = 512;

export function addBenchOps(bench: Command): void {
  const command = bench
    .command('ops')
    .description('where the time of a pass goes, op by op')
    .argument('[model]', MODEL);
  withReport(withCpu(withModelPath(command)))
    .option('--prompt <n>', 'tokens of the prompt', positive, 512)
    .option('--generate <n>', 'tokens after it', positive, 16)
    .addHelpText(
      'after',
      '\nExamples:\n  tandem bench ops model.gguf\n  tandem bench ops model.gguf --prompt 2048 --json',
    )
    .action(benchOps);
}

async function benchOps(model: string | undefined, flags: Flags): Promise<void> {
  const path = await localPath(flags, model);
  const machine = describeMachine(flags.isa);
  const checkpoint = await openCheckpoint(path);
  try {
    const { program } = await buildProgram(checkpoint, { contextLength: flags.prompt + flags.generate });
    const placed = lower(program, nativeMachine(flags.isa), { exact: flags.exact });
    const rows = Math.min(MOST_ROWS, flags.prompt);
    await using executable = await nativeBackend().prepare(placed, checkpoint, {
      pages: Math.ceil((flags.prompt + flags.generate) / PAGE_TOKENS),
      maxRows: rows,
      maxOutputs: 1,
      threads: flags.threads,
      isa: flags.isa,
    });
    const ids = tokenIds(flags.prompt + flags.generate, modulusFor(placed.vocabSize));
    await timePasses(executable, ids, 0, 1, 1); // warms up; the prompt overwrites what it cached
    const prefill = await timePasses(executable, ids, 0, flags.prompt, rows);
    const decode = await timePasses(executable, ids, flags.prompt, ids.length, 1);
    const threads = executable.description.threads;
    const result = {
      model: basename(path),
      threads,
      promptTokens: flags.prompt,
      prefill: byOp(placed, prefill, 1, false),
      decode: byOp(placed, decode, flags.generate, true),
    };
    await report(flags, {
      name: `ops-${basename(path, '.gguf')}-p${flags.prompt}-t${threads}`,
      machine,
      json: result,
      text: `${result.model}; threads: ${threads}, ${machine.isa}\n\nprompt of ${flags.prompt}\n${render(result.prefill)}\n\none token after it\n${render(result.decode)}\n`,
    });
  } finally {
    await checkpoint.close();
  }
}

/** Microseconds of every step while positions [start, end) are computed in passes of at most `rows`. */
async function timePasses(
  executable: NativeExecutable,
  ids: readonly number[],
  start: number,
  end: number,
  rows: number,
): Promise<number[]> {
  const before = executable.timings();
  const pages = Int32Array.from({ length: executable.pages }, (_, page) => page);
  for (let at = start; at < end; at += rows) {
    const tokens = Int32Array.from(ids.slice(at, Math.min(at + rows, end)));
    await executable.run({
      tokens,
      sequences: [{ slot: 0, firstRow: 0, rows: tokens.length, firstPosition: at, pages }],
      outputs: [{ row: tokens.length - 1, sampling: null }],
      wantLogits: false,
    });
  }
  return executable.timings().map(({ microseconds }, step) => microseconds - before[step].microseconds);
}

/** The slowest op first. */
export function byOp(program: Program, microseconds: readonly number[], runs: number, bandwidth: boolean): OpTime[] {
  const total = microseconds.reduce((sum, time) => sum + time, 0);
  const ops = [...new Set(program.steps.map(({ op }) => op))].map((op) => {
    const indexes = program.steps.flatMap((step, index) => (step.op === op ? [index] : []));
    const time = indexes.reduce((sum, index) => sum + microseconds[index], 0);
    const bytes = indexes.reduce((sum, index) => sum + bytesPerToken(program, program.steps[index]), 0);
    const milliseconds = time / 1000 / runs;
    return {
      op,
      steps: indexes.length,
      milliseconds,
      share: total > 0 ? time / total : 0,
      ...(bandwidth && bytes > 0 && milliseconds > 0 ? { gigabytesPerSecond: bytes / (milliseconds * 1e6) } : {}),
    };
  });
  return ops.sort((a, b) => b.milliseconds - a.milliseconds);
}

function render(times: readonly OpTime[]): string {
  const rows = times.map(({ op, steps, milliseconds, share, gigabytesPerSecond }) => [
    op,
    String(steps),
    milliseconds.toFixed(3),
    `${(share * 100).toFixed(1)} %`,
    gigabytesPerSecond === undefined ? '' : formatRate(gigabytesPerSecond),
  ]);
  return table([['op', 'steps', 'ms', 'share', 'GB/s'], ...rows], 'lrrrr');
}
