/**
 * `tandem bench model`: prefill and decode of a file through the engine, as a user gets them. With `--against` the peer
 * takes turns with Tandem on the same file, threads and token ids; each run of either then loads the file anew.
 */
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import type { PeakName } from '../../backend/native/binding.ts';
import { readRules } from '../../engine/rules.ts';
import { openCheckpoint } from '../../formats/open.ts';
import type { Engine, LoadOptions } from '../../index.ts';
import { buildProgram } from '../../models/index.ts';
import { activeOf, activeWeights } from '../../placement/active-weights.ts';
import { nativeMachine } from '../../placement/machine.ts';
import { lowerBoth } from '../../placement/phases.ts';
import { loadModel } from '../load-model.ts';
import { localPath } from '../model-name.ts';
import { loadOptions, MODEL, type ModelFlags, positive, withModel } from '../options.ts';
import { formatBytes, formatRate, ProgressBar, table } from '../terminal.ts';
import { type Ceiling, heaviest, rowsPerMatrix, underCeiling, unitOf } from './ceiling.ts';
import { checkPeer, PEERS, type Peer, type PeerRates, type Rates, runPeer } from './peer.ts';
import { describeMachine, type Machine, median, type ReportFlags, report, withReport } from './report.ts';
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
  /** Of what this machine read from memory with as many threads just before and after: the median over the rounds; absent with --no-ceiling. */
  readonly decodeShareOfReadBandwidth?: number;
  /** What it read around each round. */
  readonly readGigabytesPerSecond?: readonly number[];
  /** Products and sums with weights, two operations for each weight that a token meets; attention itself is not counted. */
  readonly prefillTflops: number;
  /** What multiplies in the heaviest step of a pass over the prompt, and the share of what it gives here. */
  readonly prefillUnit?: PeakName;
  readonly prefillShareOfPeak?: number;
  readonly numerics: 'exact' | 'fast';
  /** Tandem's figure divided by this. */
  readonly against?: { readonly name: Peer; readonly prefillRatio: number; readonly decodeRatio: number } & PeerRates;
  readonly runs: Readonly<Record<string, readonly PeerRates[]>>;
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
  const path = await localPath(flags, model);
  if (flags.against) checkPeer(flags.against);
  const machine = describeMachine(flags.isa);
  const work = await workOf(path, flags, machine);
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const { info, runs, ceilings } = await measure(path, flags, machine, interrupt.signal);
  const threads = Number(info.execution.threads ?? 1);
  const figures = medians(runs.tandem);
  const bytesPerSecond = work.bytesPerToken * figures.decodeTokensPerSecond;
  const operationsPerSecond = 2 * work.activeWeights * figures.prefillTokensPerSecond;
  // Each round against what was measured around it; none: --no-ceiling, or a unit whose peak is not measured.
  const shares = (of: (run: Rates, ceiling: Ceiling) => number | undefined) =>
    ceilings.flatMap((ceiling, round) => of(runs.tandem[round], ceiling) ?? []);
  const ofMemory = shares((run, at) => (work.bytesPerToken * run.decodeTokensPerSecond) / at.bytesPerSecond);
  const ofPeak = shares((run, { peaks }) => {
    const peak = work.unit && peaks[work.unit];
    return peak && (2 * work.activeWeights * run.prefillTokensPerSecond) / peak;
  });
  const peer = flags.against && { ...medians(runs[flags.against]), system: runs[flags.against][0].system };
  const result: ModelResult = {
    ...figures,
    model: { name: basename(path), weightBytes: info.weights },
    promptTokens: flags.prompt,
    generatedTokens: flags.generate,
    threads,
    isa: machine.isa,
    numerics: info.numerics,
    bytesPerToken: work.bytesPerToken,
    decodeGigabytesPerSecond: bytesPerSecond / 1e9,
    ...(ofMemory.length > 0 && { decodeShareOfReadBandwidth: median(ofMemory) }),
    ...(ceilings.length > 0 && { readGigabytesPerSecond: ceilings.map((each) => each.bytesPerSecond / 1e9) }),
    prefillTflops: operationsPerSecond / 1e12,
    ...(work.unit && { prefillUnit: work.unit }),
    ...(ofPeak.length > 0 && { prefillShareOfPeak: median(ofPeak) }),
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

interface Work {
  /** Weights that one generated token reads. */
  readonly bytesPerToken: number;
  readonly activeWeights: number;
  /** Of the heaviest step when the prompt is one pass. */
  readonly unit?: PeakName;
}

/** From headers. */
async function workOf(
  path: string,
  { prompt, isa, exact, activations, rules }: Flags,
  machine: Machine,
): Promise<Work> {
  const checkpoint = await openCheckpoint(path);
  try {
    const { program } = await buildProgram(checkpoint);
    const given = rules === undefined ? [] : await readRules(rules);
    const placed = lowerBoth(program, nativeMachine(isa), { exact, activations, rules: given });
    const step = heaviest(placed, activeOf);
    return {
      bytesPerToken: program.steps.reduce((sum, each) => sum + bytesPerToken(program, each), 0),
      activeWeights: activeWeights(program),
      unit: unitOf(step.placement!, rowsPerMatrix(placed, step, prompt), machine),
    };
  } finally {
    await checkpoint.close();
  }
}

async function measure(path: string, flags: Flags, machine: Machine, signal: AbortSignal) {
  const { prompt, generate, rounds, against, threads, ceiling: wanted } = flags;
  const contextLength = flags.context ?? prompt + generate + 1;
  const options: LoadOptions = { ...loadOptions(flags), contextLength, maxSequences: 1, prefixCache: false };
  const runs: Record<string, PeerRates[]> = { tandem: [] };
  const ceilings: Ceiling[] = [];
  const bar = new ProgressBar('measuring');
  let engine: Engine | undefined;
  try {
    for (let round = 0; round < rounds; round++) {
      engine ??= await loadModel(path, options, signal);
      const { result, ceiling } = await underCeiling({ wanted, threads, machine }, () =>
        runTandem(engine!, prompt, generate, signal),
      );
      runs.tandem.push(result);
      if (ceiling) ceilings.push(ceiling);
      bar.update(round + 1, rounds, 'rounds');
      const { info } = engine;
      if (against === undefined) continue;
      await engine.dispose(); // two models in memory would be in each other's way
      engine = undefined;
      const modulus = modulusFor(info.vocabSize);
      const work = { file: path, threads: Number(info.execution.threads), prompt, generate, modulus, signal };
      const rates = await runPeer(against, { ...work, isa: machine.isa });
      (runs[against] ??= []).push(rates);
      if (round === rounds - 1) return { info, runs, ceilings };
    }
    return { info: engine!.info, runs, ceilings };
  } finally {
    bar.end();
    await engine?.dispose();
  }
}

/** One prompt, one answer that goes on past the end of the text. `computedTokens`: of the prompt, all unless pages of it were kept. */
async function runTandem(
  engine: Engine,
  prompt: number,
  generate: number,
  signal: AbortSignal,
): Promise<Rates & { computedTokens: number }> {
  const ids = tokenIds(prompt, modulusFor(engine.info.vocabSize));
  const { timings, usage } = await engine.generate(ids, {
    temperature: 0,
    maxTokens: generate + 1, // the first one ends the prefill
    ignoreEos: true,
    signal,
  });
  return {
    prefillTokensPerSecond: timings.promptTokensPerSecond,
    decodeTokensPerSecond: timings.tokensPerSecond,
    computedTokens: usage.promptTokens - usage.cachedTokens,
  };
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
  const { prefillUnit: unit, prefillShareOfPeak: ofPeak } = result;
  const peak = ofPeak === undefined ? '' : `, ${(ofPeak * 100).toFixed(0)} % of what ${unit} gives`;
  const peer = against?.system === undefined ? '' : `\n${against.name}: ${against.system}`;
  return `${model.name}, ${formatBytes(model.weightBytes)}; threads: ${threads}, ${isa}, ${result.numerics}; medians of ${runs.tandem.length}

${table(rows, 'lrr')}

decode reads ${formatBytes(Math.round(result.bytesPerToken))} a token: ${formatRate(result.decodeGigabytesPerSecond)} GB/s${ceiling}
prefill: ${result.prefillTflops.toFixed(3)} TFLOPS${peak}${peer}
`;
}
