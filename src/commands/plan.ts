/** `tandem plan MODEL`: does it fit, how fast will it be, which quantization to take; before anything is downloaded. */
import { readFile } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { ChunkSize } from '../engine/chunk-size.ts';
import { TandemError } from '../errors.ts';
import { fileError } from '../formats/file-source.ts';
import { gigabytes } from '../placement/fit.ts';
import { type Advice, advise, type Plan, plan } from '../placement/plan.ts';
import { PASS } from '../placement/predict.ts';
import { availableOf, type MachineProfile, parseProfile, threadsOf, usedGpus } from '../placement/profile.ts';
import { profileHere } from './machine-profile.ts';
import { modelPath, positive, withBudget } from './options.ts';
import { candidatesOf, type Sized, type SizedQuant } from './plan/candidates.ts';
import { formatBytes, formatRate, ProgressBar, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  machine?: string;
  context?: number;
  memory?: number;
  vram?: number;
  prompt: number;
  kvType?: 'bf16' | 'f32';
  offline?: boolean;
  fresh?: boolean;
  json?: boolean;
}

export function addPlan(cli: Command): void {
  const command = cli
    .command('plan')
    .description('will it fit and how fast will it be: each quantization of a model on this machine or another')
    .argument(
      '[model]',
      'GGUF file, Hugging Face folder, config.json, known model (tandem synth --help), or organization/model[:QUANT] on a hub',
    )
    .option('-m, --model <path>', 'the same')
    .option('--machine <file>', 'plan for the machine of this file (what tandem bench machine --json printed there)')
    .option('-c, --context <tokens>', "context length (default: the model's, if memory allows)", positive)
    .option('--prompt <n>', 'tokens of the prompt that speeds are predicted for', positive, 512)
    .addOption(new Option('--kv-type <type>', 'element type of the KV cache (default: bf16)').choices(['bf16', 'f32']));
  withBudget(command)
    .option('--offline', 'ask nothing of the network')
    .option('--fresh', 'measure this machine anew')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem plan model.gguf                            this file on this machine
  tandem plan unsloth/DeepSeek-R1-GGUF              which quantization of it? Headers only, nothing is downloaded
  tandem plan deepseek-v3 --machine server.json     the standard mixes of a known model on another machine
  tandem plan ./config.json --ram 64GB --context 8192 --json`,
    )
    .action(planCommand);
}

interface Row extends SizedQuant {
  readonly plan?: Plan;
}

async function planCommand(argument: string | undefined, flags: Flags): Promise<void> {
  const given = argument ?? flags.model;
  if (argument !== undefined && flags.model !== undefined && argument !== flags.model) modelPath(flags, argument); // refuses
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const bar = new ProgressBar('reading headers');
  const sized = await candidatesOf(given ?? modelPath(flags), {
    kvType: flags.kvType,
    offline: flags.offline,
    onProgress: (done, total) => bar.update(done, total, 'quantizations'),
    signal: interrupt.signal,
  }).finally(() => bar.end());
  const formats = sized.quants.flatMap(({ sizes }) => sizes?.matrices.map(({ format }) => format) ?? []);
  const wanted = sized.source === 'file' ? [...new Set(formats)] : [];
  const profile = flags.machine
    ? await profileOf(flags.machine)
    : await profileHere({ fresh: flags.fresh, formats: wanted });
  const request = { context: flags.context, ram: flags.memory, vram: flags.vram, prompt: flags.prompt };
  const passSize = () => new ChunkSize({ minRows: 64, maxRows: PASS.rows, firstRows: PASS.rows, targetMs: PASS.seconds * 1000 }); // biome-ignore format: one thought a line
  const rows: Row[] = sized.quants.map((quant) => {
    if (quant.sizes === undefined) return quant;
    const context = flags.context && Math.min(flags.context, quant.sizes.contextLength);
    if (context !== flags.context) return { ...quant, problem: `its context is ${quant.sizes.contextLength} tokens` };
    return { ...quant, plan: plan(quant.sizes, profile, { ...request, passSize }) };
  });
  const planned = rows.filter((row): row is Row & { plan: Plan } => row.plan !== undefined);
  if (planned.length === 0) plan(sized.quants.find(({ sizes }) => sizes)!.sizes!, profile, request); // says why
  const advice = advise(planned);
  if (flags.json) {
    const quants = rows.map(({ sizes, plan: made, ...row }) => ({ ...row, ...sizesFor(sizes), ...(made && { plan: made }) })); // biome-ignore format: one thought a line
    process.stdout.write(`${JSON.stringify({ model: sized.model, source: sized.source, request, advice, quants, machine: profile })}\n`); // biome-ignore format: one thought a line
  } else process.stdout.write(render(sized, rows, advice, profile));
  if (advice.quant === undefined) process.exitCode = 1;
}

/** The figures of a model that a plan rests on. */
function sizesFor(sizes: SizedQuant['sizes']) {
  if (!sizes) return {};
  const { matrices: _, attention: __, ...figures } = sizes;
  return { sizes: figures };
}

async function profileOf(path: string): Promise<MachineProfile> {
  const text = await readFile(path, 'utf8').catch((cause) => {
    throw fileError('read', path, cause);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'the file of --machine is JSON',
      given: `${path}: ${(cause as Error).message}`,
      fix: 'take what `tandem bench machine --json` prints on that machine',
      cause,
    });
  }
  return parseProfile(json, path);
}

function render(sized: Sized, rows: readonly Row[], advice: Advice, profile: MachineProfile): string {
  const lines = [headline(sized, rows, advice), paint('dim', machineLine(profile)), ''];
  const head = ['', 'quant', 'size', 'bits', 'fits', 'RAM', 'VRAM', 'context', 'load', 'prefill tok/s', 'decode tok/s', 'limited by']; // biome-ignore format: a row of a table
  const gpus = usedGpus(profile).length > 0;
  const columns = (cells: readonly string[]) => cells.filter((_, column) => gpus || column !== 6);
  const body = rows.map(({ quant, fileBytes, plan: made, problem }) => {
    const mark = quant === advice.quant ? '→' : '';
    if (!made) return columns([mark, quant, fileBytes === undefined ? '–' : formatBytes(fileBytes), '–', '–', '–', '–', '–', '–', '–', '–', shorten(problem ?? '')]); // biome-ignore format: a row of a table
    const { fit } = made;
    return columns([
      mark,
      quant,
      formatBytes(fileBytes ?? made.weightBytes),
      made.bitsPerWeight.toFixed(1),
      fit.fits === 'memory' ? 'yes' : fit.fits === 'disk' ? 'on disk' : 'no',
      formatBytes(Math.round(fit.ram)),
      formatBytes(Math.round(fit.vram)),
      contextOf(fit.context),
      made.loadSeconds === undefined ? '–' : duration(made.loadSeconds),
      range(made.prefill),
      range(made.decode),
      made.bottleneck,
    ]);
  });
  lines.push(table([columns(head), ...body], gpus ? 'llrrlrrrrrrl' : 'llrrlrrrrrl'));
  const advised = rows.find(({ quant }) => quant === advice.quant) ?? rows.find((row) => row.plan);
  if (advised?.plan) lines.push('', `${advised.quant}: ${advised.plan.fit.reason}; ${detail(advised.plan)}`);
  for (const { quant, problem } of rows) if (problem !== undefined) lines.push(paint('yellow', `${quant}: ${problem}`));
  return `${lines.join('\n')}\n`;
}

function headline({ model, source, quants }: Sized, rows: readonly Row[], { quant, why }: Advice): string {
  if (quant === undefined) return paint(['bold', 'red'], `${model}: ${why}`);
  const made = rows.find((row) => row.quant === quant)?.plan;
  const speed = made?.decode ? `about ${formatRate(made.decode.tokensPerSecond.expected)} tok/s` : '';
  const verdict =
    quants.length > 1 ? `take ${quant}: ${why}; ${speed}` : made?.fit.fits === 'memory' ? `fits, ${speed}` : `${why}; ${speed}`; // biome-ignore format: one thought a line
  const next = source === 'hub' ? `\n${paint('dim', `tandem pull ${model}:${quant}`)}` : '';
  return `${paint('bold', `${model}: ${verdict}`)}${next}`;
}

function machineLine(profile: MachineProfile): string {
  const { cpu, memory, gpus, disk } = profile;
  const cards = gpus
    .map(({ name, memoryBytes, refused }) => `, ${name} ${gigabytes(memoryBytes)}${refused ? ' (not used)' : ''}`)
    .join('');
  const reads = `${gigabytes(memory.bandwidth)}/s${memory.measured ? '' : ' by its data sheet'}`;
  return `${profile.name ?? cpu.model}: ${cpu.cores} cores (${cpu.isa}), ${threadsOf(profile)} threads, ${gigabytes(availableOf(profile))} of ${gigabytes(memory.bytes)} available at ${reads}${cards}${disk ? `, disk ${gigabytes(disk.bandwidth)}/s` : ''}`;
}

function detail({ decode, prefill, prompt }: Plan): string {
  if (!decode || !prefill) return 'it does not run here';
  const ms = (part: number) => `${formatRate(part * 1000)} ms`;
  const parts = Object.entries(decode.parts)
    .filter(([, part]) => part > decode.seconds / 100)
    .sort((a, b) => b[1] - a[1])
    .map(([name, part]) => `${name} ${ms(part)}`);
  const streamed = prefill.streamed ? ', experts streamed to the GPU' : '';
  return `a token takes ${ms(decode.seconds)} (${parts.join(', ')}); a prompt of ${prompt} tokens ${duration(prefill.seconds)}, ${prefill.rows} at a time${streamed}`;
}

function range(prediction: Plan['decode']): string {
  if (!prediction) return '–';
  const { low, high } = prediction.tokensPerSecond;
  return `${formatRate(low)}–${formatRate(high)}`;
}

function contextOf(tokens: number): string {
  return tokens >= 10_000 ? `${Math.round(tokens / 1000)}k` : String(tokens);
}

function duration(seconds: number): string {
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  return seconds >= 10 ? `${Math.round(seconds)} s` : `${seconds.toPrecision(2)} s`;
}

function shorten(text: string): string {
  return text.length > 60 ? 'see below' : text;
}
