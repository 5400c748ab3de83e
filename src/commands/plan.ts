/** `tandem plan MODEL`: does it fit, how fast will it be, which quantization to take; before anything is downloaded. */
import { type Command, Option } from 'commander';
import { ChunkSize } from '../engine/chunk-size.ts';
import { advise } from '../placement/advice.ts';
import { type Plan, plan } from '../placement/plan.ts';
import { PASS } from '../placement/predict.ts';
import { parseProfile } from '../placement/profile.ts';
import { machineJson } from './machine-file.ts';
import { profileHere } from './machine-profile.ts';
import { modelPath, positive, withBudget } from './options.ts';
import { cacheSpace } from './plan/cache-space.ts';
import { candidatesOf, type SizedQuant } from './plan/candidates.ts';
import { whatWouldDo } from './plan/instead.ts';
import { type Row, renderPlan } from './plan/render.ts';
import { ProgressBar } from './terminal.ts';

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
    ? parseProfile(await machineJson(flags.machine), flags.machine)
    : await profileHere({ fresh: flags.fresh, formats: wanted });
  const request = { context: flags.context, ram: flags.memory, vram: flags.vram, prompt: flags.prompt };
  const passSize = () => new ChunkSize({ minRows: 64, maxRows: PASS.rows, firstRows: PASS.rows, targetMs: PASS.seconds * 1000, mostMs: PASS.mostSeconds * 1000 }); // biome-ignore format: one thought a line
  const rows: Row[] = sized.quants.map((quant) => {
    if (quant.sizes === undefined) return quant;
    const context = flags.context && Math.min(flags.context, quant.sizes.contextLength);
    if (context !== flags.context) return { ...quant, problem: `its context is ${quant.sizes.contextLength} tokens` };
    return { ...quant, plan: plan(quant.sizes, profile, { ...request, passSize }) };
  });
  const planned = rows.filter((row): row is Row & { plan: Plan } => row.plan !== undefined);
  if (planned.length === 0) plan(sized.quants.find(({ sizes }) => sizes)!.sizes!, profile, request); // says why
  const advice = advise(planned);
  const poor = advice.quant === undefined || advice.runs !== undefined;
  const instead = poor ? await whatWouldDo(rows, profile, request) : [];
  if (flags.json) {
    const quants = rows.map(({ sizes, plan: made, ...row }) => ({ ...row, ...sizesFor(sizes), ...(made && { plan: made }) })); // biome-ignore format: one thought a line
    process.stdout.write(`${JSON.stringify({ model: sized.model, source: sized.source, request, advice, instead, quants, machine: profile })}\n`); // biome-ignore format: one thought a line
  } else {
    const diskFree = sized.source === 'hub' && !flags.machine ? await cacheSpace(sized.model) : undefined;
    process.stdout.write(renderPlan({ sized, rows, advice, profile, instead, diskFree }));
  }
  if (advice.quant === undefined) process.exitCode = 1;
}

/** The figures of a model that a plan rests on. */
function sizesFor(sizes: SizedQuant['sizes']) {
  if (!sizes) return {};
  const { matrices: _, attention: __, ...figures } = sizes;
  return { sizes: figures };
}
