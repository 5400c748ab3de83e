/**
 * `tandem compare`: the native kernels against the reference, in lock-step over a text, each step judged by the bound of
 * its op. Names the first step that leaves it; exit code 1 then.
 */
import { type Command, Option } from 'commander';
import { type CompareReport, comparePrograms, describeFailure, type StepReport } from '../backend/compare.ts';
import { nativeBackend } from '../backend/native/backend.ts';
import { referenceBackend } from '../backend/reference.ts';
import { byDefinition } from '../engine/verify/definition.ts';
import { TandemError } from '../errors.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';
import { OPS } from '../ops/index.ts';
import { nativeMachine } from '../placement/machine.ts';
import { lowerBoth } from '../placement/phases.ts';
import type { Batch } from '../program/batch.ts';
import { type KvType, PAGE_TOKENS } from '../program/program.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { localPath } from './model-name.ts';
import { MODEL, positive, tokenIds, withCpu, withModelPath, withRules } from './options.ts';
import { rulesOf } from './rules.ts';
import { ProgressBar, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  ids?: number[];
  text: string;
  threads?: number;
  isa?: string;
  exact?: boolean;
  rules?: string;
  kvType: KvType;
  chunk?: number;
  free?: boolean;
  all?: boolean;
  json?: boolean;
}

const TEXT = 'Two jugs of 3 L and 5 L, and all the water of the world: how do I get 4 L? 请问如何得到 4 L 水？';

export function addCompare(cli: Command): void {
  const command = cli
    .command('compare')
    .description('native kernels against the reference, step by step; exit code 1 where a step leaves its bound')
    .argument('[model]', MODEL);
  withRules(withCpu(withModelPath(command)))
    .option('--text <text>', 'text to run over (default: a line of English and Chinese)', TEXT)
    .option('--ids <list>', 'token ids instead of a text: 0,5,6', tokenIds)
    .addOption(
      new Option('--kv-type <type>', 'element type of the KV cache').choices(['bf16', 'e4m3', 'f32']).default('bf16'),
    )
    .option('--chunk <n>', 'tokens per pass (default: all at once)', positive)
    .option('--free', 'let both drift and judge NMSE, instead of judging each step alone')
    .option('--all', 'go on after the first failure')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem compare                        is the native core right on this machine?
  tandem compare --isa avx2 --chunk 7   other kernels, the prompt in pieces
  tandem compare model.gguf --all       every step that leaves its bound`,
    )
    .action(compare);
}

async function compare(model: string | undefined, flags: Flags): Promise<void> {
  const checkpoint = await openCheckpoint(await localPath(flags, model));
  try {
    const { program } = await buildProgram(checkpoint, { kvType: flags.kvType });
    const { threads, isa, exact } = flags;
    const rules = await rulesOf(flags, program);
    const placed = lowerBoth(program, nativeMachine(isa), { exact, rules });
    const ids = flags.ids ?? (await createTokenizer(checkpoint)).encode(flags.text);
    checkIds(ids, placed.vocabSize, placed.contextLength);
    const batches = chunks(ids, flags.chunk ?? ids.length);
    const rows = Math.max(...batches.map((batch) => batch.tokens.length));
    const limits = { pages: Math.ceil(ids.length / PAGE_TOKENS), maxRows: rows, maxOutputs: rows };
    await using native = await nativeBackend().prepare(placed, checkpoint, { ...limits, threads, isa });
    const judge = referenceBackend({ trackMagnitudes: true });
    await using reference = await judge.prepare(byDefinition(placed), checkpoint, limits);
    const bar = new ProgressBar('comparing');
    let done = 0;
    const report = await comparePrograms({
      onStep: () => bar.update(++done, batches.length * placed.steps.length, 'steps'),
      left: native,
      right: reference,
      batches,
      ops: OPS,
      mode: flags.free ? 'free' : 'locked',
      stopAtFailure: !flags.all,
    });
    bar.end();
    process.stdout.write(flags.json ? toJson(report) : render(report, native.description));
    if (report.firstFailure) process.exitCode = 1;
  } finally {
    await checkpoint.close();
  }
}

function checkIds(ids: readonly number[], vocabSize: number, contextLength: number): void {
  const wrong = ids.find((id) => id >= vocabSize);
  if (ids.length > 0 && ids.length <= contextLength && wrong === undefined) return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'cli',
    rule: `compare runs over 1 to ${contextLength} token ids below ${vocabSize}`,
    given: wrong === undefined ? `${ids.length} ids were given` : `id ${wrong} was given`,
    fix: 'give other --ids or another --text',
  });
}

/** The sequence in passes of at most `size` rows; the logits of every row are computed. */
function chunks(ids: readonly number[], size: number): Batch[] {
  const pages = Int32Array.from({ length: Math.ceil(ids.length / PAGE_TOKENS) }, (_, page) => page);
  const batches: Batch[] = [];
  for (let first = 0; first < ids.length; first += size) {
    const tokens = Int32Array.from(ids.slice(first, first + size));
    batches.push({
      tokens,
      sequences: [{ slot: 0, firstRow: 0, rows: tokens.length, firstPosition: first, pages }],
      outputs: Array.from(tokens, (_, row) => ({ row, sampling: null })),
      wantLogits: true,
    });
  }
  return batches;
}

function toJson(report: CompareReport): string {
  return `${JSON.stringify({ ...report, layers: Object.fromEntries(report.layers) }, null, 2)}\n`;
}

function render(report: CompareReport, execution: Readonly<Record<string, string | number>>): string {
  const ops = new Map<string, { steps: number; nmse: number; ratio: number }>();
  for (const step of report.steps) {
    const op = ops.get(step.op) ?? { steps: 0, nmse: 0, ratio: 0 };
    op.steps++;
    op.nmse = Math.max(op.nmse, step.nmse);
    op.ratio = Math.max(op.ratio, step.worst?.ratio ?? 0);
    ops.set(step.op, op);
  }
  const header = ['op', 'steps', 'worst NMSE', report.mode === 'locked' ? 'worst error / bound' : ''];
  const rows = [...ops].map(([name, op]) => [
    name,
    String(op.steps),
    op.nmse.toExponential(1),
    report.mode === 'locked' ? op.ratio.toFixed(3) : '',
  ]);
  const machine = Object.entries(execution).map(([key, value]) => `${key} ${value}`);
  const verdict = report.firstFailure
    ? paint('red', failure(report.firstFailure))
    : paint('green', `${report.steps.length} steps are within their bounds`);
  return `native (${machine.join(', ')}) against reference, ${report.mode}\n\n${table([header, ...rows], 'lrrr')}\n\n${verdict}\n`;
}

function failure(step: StepReport): string {
  return `step ${step.index} ${step.name} (${step.op}, pass ${step.batch}) leaves its bound; ${describeFailure(step)}`;
}
