/**
 * `tandem bench model`: prefill and decode of a file through the engine, as a user gets them. With `--against` the peer
 * takes turns with Tandem on the same file, threads and token ids; each run of either then loads the file anew.
 */
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { openCheckpoint } from '../../formats/open.ts';
import type { Engine, LoadOptions } from '../../index.ts';
import { buildProgram } from '../../models/index.ts';
import { loadModel } from '../load-model.ts';
import { loadOptions, MODEL, type ModelFlags, modelPath, positive, withModel } from '../options.ts';
import { formatBytes, formatRate, ProgressBar, table } from '../terminal.ts';
import { checkPeer, PEERS, type Peer, type Rates, runPeer } from './peer.ts';
import { describeMachine, median, type ReportFlags, report, underCeiling, withReport } from './report.ts';
import { modulusFor, tokenIds } from './token-ids.ts';
import { bytesPerToken } from './weight-bytes.ts';

interface Flags extends ModelFlags, ReportFlags {
  prompt: number;
  generate: number;
  rounds: number;
  against?: Peer;
  ceiling: boolean;
}

/** Medians over the rounds; `runs` has them all, in order. */
interface ModelResult extends Rates {
  readonly model: { readonly name: string; readonly weightBytes: number };
  readonly promptTokens: number;
  readonly generatedTokens: number;
  readonly threads: number;
  readonly isa: string;
  /** Weights that one generated token reads. */
  readonly bytesPerToken: number;
  /** bytesPerToken · decodeTokensPerSecond. */
  readonly decodeGigabytesPerSecond: number;
  /** Of what this machine reads from memory with as many threads; absent with --no-ceiling. */
  readonly decodeShareOfReadBandwidth?: number;
  /** Tandem's figure divided by this. */
  readonly against?: { readonly name: Peer; readonly prefillRatio: number; readonly decodeRatio: number } & Rates;
  readonly runs: Readonly<Record<string, readonly Rates[]>>;
}

export function addBenchModel(bench: Command): void {
  const command = bench
    .command('model')
    .description('prefill and decode of a model, in tokens per second')
    .argument('[model]', MODEL);
  withReport(withModel(command))
    .option('--prompt <n>', 'tokens of the prompt', positive, 512)
    .option('--generate <n>', 'tokens to generate', positive, 64)
    .option('--rounds <n>', 'runs, of which the median counts', positive, 3)
    .addOption(new Option('--against <engine>', 'race another engine (installed in bench/peers)').choices(PEERS))
    .option('--no-ceiling', 'do not measure the read bandwidth of the machine')
    .addHelpText(
      'after',
      `
Examples:
  tandem bench model model.gguf
  tandem bench model model.gguf --prompt 512 --generate 64 --threads 2 --json
  tandem bench model model.gguf --threads 2 --against node-llama-cpp --record`,
    )
    .action(benchModel);
}

async function benchModel(model: string | undefined, flags: Flags): Promise<void> {
  const path = modelPath(flags, model);
  if (flags.against) checkPeer(flags.against);
  const machine = describeMachine(flags.isa);
  const perToken = await decodeBytes(path);
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const { result: measured, ceiling } = await underCeiling(
    { wanted: flags.ceiling, threads: flags.threads, machine },
    () => measure(path, flags, interrupt.signal),
  );
  const { info, runs } = measured;
  const threads = Number(info.execution.threads ?? 1);
  const figures = medians(runs.tandem);
  const bytesPerSecond = perToken * figures.decodeTokensPerSecond;
  const peer = flags.against && medians(runs[flags.against]);
  const result: ModelResult = {
    ...figures,
    model: { name: basename(path), weightBytes: info.weights },
    promptTokens: flags.prompt,
    generatedTokens: flags.generate,
    threads,
    isa: machine.isa,
    bytesPerToken: perToken,
    decodeGigabytesPerSecond: bytesPerSecond / 1e9,
    ...(ceiling === undefined ? {} : { decodeShareOfReadBandwidth: bytesPerSecond / ceiling }),
    ...(peer === undefined
      ? {}
      : {
          against: {
            name: flags.against!,
            ...peer,
            prefillRatio: figures.prefillTokensPerSecond / peer.prefillTokensPerSecond,
            decodeRatio: figures.decodeTokensPerSecond / peer.decodeTokensPerSecond,
          },
        }),
    runs,
  };
  const name = `model-${basename(path, '.gguf')}-p${flags.prompt}-g${flags.generate}-t${threads}`;
  await report(flags, { name, machine, json: result, text: render(result) });
}

/** Bytes of weights that one generated token reads; from headers. */
async function decodeBytes(path: string): Promise<number> {
  const checkpoint = await openCheckpoint(path);
  try {
    const { program } = await buildProgram(checkpoint);
    return program.steps.reduce((sum, step) => sum + bytesPerToken(program, step), 0);
  } finally {
    await checkpoint.close();
  }
}

async function measure(path: string, flags: Flags, signal: AbortSignal) {
  const { prompt, generate, rounds, against } = flags;
  const contextLength = flags.context ?? prompt + generate + 1;
  const options: LoadOptions = { ...loadOptions(flags), contextLength, maxSequences: 1 };
  const runs: Record<string, Rates[]> = { tandem: [] };
  const bar = new ProgressBar('measuring');
  let engine: Engine | undefined;
  try {
    for (let round = 0; round < rounds; round++) {
      engine ??= await loadModel(path, options, signal);
      runs.tandem.push(await runTandem(engine, prompt, generate, signal));
      bar.update(round + 1, rounds, 'rounds');
      const { info } = engine;
      if (against === undefined) continue;
      await engine.dispose(); // two models in memory would be in each other's way
      engine = undefined;
      const threads = Number(info.execution.threads);
      const modulus = modulusFor(info.vocabSize);
      const rates = await runPeer(against, { file: path, threads, prompt, generate, modulus, signal });
      (runs[against] ??= []).push(rates);
      if (round === rounds - 1) return { info, runs };
    }
    return { info: engine!.info, runs };
  } finally {
    bar.end();
    await engine?.dispose();
  }
}

/** One prompt, one answer that goes on past the end of the text. */
async function runTandem(engine: Engine, prompt: number, generate: number, signal: AbortSignal): Promise<Rates> {
  const ids = tokenIds(prompt, modulusFor(engine.info.vocabSize));
  const { timings } = await engine.generate(ids, {
    temperature: 0,
    maxTokens: generate + 1, // the first one ends the prefill
    ignoreEos: true,
    signal,
  });
  return { prefillTokensPerSecond: timings.promptTokensPerSecond, decodeTokensPerSecond: timings.tokensPerSecond };
}

function medians(runs: readonly Rates[]): Rates {
  return {
    prefillTokensPerSecond: median(runs.map((run) => run.prefillTokensPerSecond)),
    decodeTokensPerSecond: median(runs.map((run) => run.decodeTokensPerSecond)),
  };
}

function render(result: ModelResult): string {
  const { model, threads, isa, runs, against, promptTokens, generatedTokens } = result;
  const share = result.decodeShareOfReadBandwidth;
  const ceiling = share === undefined ? '' : `, ${(share * 100).toFixed(0)} % of what memory gives`;
  const rows = [
    ['', `prefill ${promptTokens}`, `decode ${generatedTokens}`],
    ['Tandem, tok/s', formatRate(result.prefillTokensPerSecond), formatRate(result.decodeTokensPerSecond)],
  ];
  if (against)
    rows.push(
      [`${against.name}, tok/s`, formatRate(against.prefillTokensPerSecond), formatRate(against.decodeTokensPerSecond)],
      ['ratio', formatRate(against.prefillRatio), formatRate(against.decodeRatio)],
    );
  return `${model.name}, ${formatBytes(model.weightBytes)}; threads: ${threads}, ${isa}; medians of ${runs.tandem.length}

${table(rows, 'lrr')}

decode reads ${formatBytes(Math.round(result.bytesPerToken))} a token: ${formatRate(result.decodeGigabytesPerSecond)} GB/s${ceiling}
`;
}
