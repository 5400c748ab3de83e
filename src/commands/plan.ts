/** `tandem plan MODEL`: does it fit, how fast will it be, which quantization to take; before anything is downloaded. */
import { type Command, Option } from 'commander';
import { ChunkSize } from '../engine/chunk-size.ts';
import { advise } from '../placement/advice.ts';
import type { SharingWish } from '../placement/expert-sharing.ts';
import { gigabytes, roomOf } from '../placement/fit.ts';
import { type Plan, plan } from '../placement/plan.ts';
import { PASS } from '../placement/predict.ts';
import { parseProfile } from '../placement/profile.ts';
import type { Program } from '../program/program.ts';
import { machineJson } from './machine-file.ts';
import { profileHere } from './machine-profile.ts';
import { modelPath, positive, withBudget, withDeferral, withHotExperts, withRules } from './options.ts';
import { cacheSpace } from './plan/cache-space.ts';
import { candidatesOf, type SizedQuant } from './plan/candidates.ts';
import { whatWouldDo } from './plan/instead.ts';
import { type Row, renderPlan } from './plan/render.ts';
import { deferredOf, rulesOf, warn } from './rules.ts';
import { ProgressBar } from './terminal.ts';

interface Flags {
  model?: string;
  machine?: string;
  context?: number;
  memory?: number;
  vram?: number;
  prompt: number;
  kvType?: 'bf16' | 'f32';
  rules?: string;
  deferExperts?: number;
  hotExperts?: SharingWish;
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
  withHotExperts(withDeferral(withRules(withBudget(command))))
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
  tandem plan deepseek-v3 --machine server.json --rules one-gpu --defer-experts 2     as these rules place it
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
  const programs = sized.quants.flatMap(({ program }) => program ?? []);
  const rules = await rulesOf(flags, ...programs);
  deferredOf(flags, programs[0]);
  const { context: longest, memory: ram, vram, prompt, deferExperts, hotExperts } = flags;
  const request = { context: longest, ram, vram, prompt, ...(deferExperts && { deferExperts }), ...(hotExperts && { hotExperts }) }; // biome-ignore format: one thought a line
  const placed = { ...request, ...(rules.length > 0 && { rules }) };
  tellCapped('ram', ram, roomOf(profile).ram);
  tellCapped('vram', vram, sum(roomOf(profile).cards));
  const passSize = () => new ChunkSize({ minRows: 64, maxRows: PASS.rows, firstRows: PASS.rows, targetMs: PASS.seconds * 1000, mostMs: PASS.mostSeconds * 1000 }); // biome-ignore format: one thought a line
  const planOf = (program: Program) => plan(program, profile, { ...placed, passSize });
  const rows: Row[] = sized.quants.map((quant) => {
    const { program } = quant;
    if (program === undefined) return quant;
    const { contextLength } = program;
    if (longest && longest > contextLength) return { ...quant, problem: `its context is ${contextLength} tokens` };
    try {
      return { ...quant, plan: planOf(program) };
    } catch (error) {
      return { ...quant, problem: (error as Error).message }; // told for all where none can be placed
    }
  });
  const planned = rows.filter((row): row is Planned => row.plan !== undefined);
  if (planned.length === 0) planOf(sized.quants.find(({ program }) => program)!.program!); // says why
  const advice = advise(planned);
  const poor = advice.quant === undefined || advice.runs !== undefined;
  const instead = poor ? await whatWouldDo(rows, profile, placed) : [];
  if (flags.json) {
    const quants = rows.map(({ sizes, program: _, plan: made, ...row }) => ({ ...row, ...sizesFor(sizes), ...(made && { plan: made }) })); // biome-ignore format: one thought a line
    process.stdout.write(`${JSON.stringify({ model: sized.model, source: sized.source, request: { ...request, rules: flags.rules }, advice, instead, quants, machine: profile })}\n`); // biome-ignore format: one thought a line
  } else {
    const diskFree = sized.source === 'hub' && !flags.machine ? await cacheSpace(sized.model) : undefined;
    process.stdout.write(renderPlan({ sized, rows, advice, profile, instead, diskFree }));
  }
  if (advice.quant === undefined) process.exitCode = 1;
}

/** A limit above what there is plans for what there is. */
function tellCapped(limit: 'ram' | 'vram', asked: number | undefined, there: number): void {
  if (asked === undefined || asked <= there) return;
  warn(`[cli] --${limit} is a limit below what there is; ${gigabytes(asked)} were given, there are ${gigabytes(there)}; --machine plans for another machine`); // biome-ignore format: one thought a line
}

function sum(values: readonly number[]): number {
  return values.reduce((all, value) => all + value, 0);
}

type Planned = Row & { readonly plan: Plan; readonly program: Program };

/** The figures of a model that a plan rests on. */
function sizesFor(sizes: SizedQuant['sizes']) {
  if (!sizes) return {};
  const { matrices: _, attention: __, gpuWorks: ___, ...figures } = sizes;
  return { sizes: figures };
}
