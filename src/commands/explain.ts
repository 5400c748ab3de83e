/** `tandem explain`: the placed Program: every step, where and how it runs, over how many bytes, and why there. */
import { type Command, Option } from 'commander';
import { checkPlaced, decidePlacement } from '../engine/auto-place.ts';
import { checkedBefore } from '../engine/gpu-check.ts';
import { describeSharing, sharingRequest } from '../engine/gpu-sharing.ts';
import { describeHits, hitsKey, readHits } from '../engine/kept-hits.ts';
import { availableMemory } from '../engine/this-machine.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';
import { QUANT_MIXES, type QuantMix } from '../models/quant-mix.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import { weightBytes } from '../placement/budget.ts';
import { memoryByDevice } from '../placement/device-memory.ts';
import type { SharingWish } from '../placement/expert-sharing.ts';
import type { Machine } from '../placement/lower.ts';
import { lowerBoth, lowerPhases } from '../placement/phases.ts';
import { PASS } from '../placement/predict.ts';
import { printProgram } from '../program/print.ts';
import { PHASES, type Program, type Step } from '../program/program.ts';
import { configOf, descriptionOf } from './description.ts';
import { machineOf } from './explain/machine.ts';
import { explainSteps, groupLayers, renderGroups } from './explain/steps.ts';
import { localPath } from './model-name.ts';
import {
  EXACT,
  MODEL,
  modelPath,
  positive,
  withBudget,
  withDeferral,
  withModelPath,
  withRules,
  withSharing,
} from './options.ts';
import { deferredOf, rulesOf } from './rules.ts';
import { formatBytes, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  quant: QuantMix;
  exact?: boolean;
  rules?: string;
  machine?: string;
  context?: number;
  memory?: number;
  vram?: number;
  deferExperts?: number;
  hotExperts?: SharingWish;
  streamPrefill?: SharingWish;
  all?: boolean;
  json?: boolean;
}

export function addExplain(cli: Command): void {
  const command = cli
    .command('explain')
    .description('what runs where and why: every step, its device, kernel, formats and bytes (reads headers only)')
    .argument('[model]', `${MODEL}; or a description: config.json, known model (tandem synth --help)`);
  withSharing(withDeferral(withBudget(withRules(withModelPath(command)))))
    .option('-c, --context <tokens>', "context length (default: the model's, if memory allows)", positive)
    .addOption(
      new Option('-q, --quant <mix>', 'formats of the weights of a description').choices(QUANT_MIXES).default('q4_k_m'),
    )
    .option('--exact', EXACT)
    .option(
      '--machine <file>',
      'explain for another machine: {"devices": ["cuda:0"]}, or what tandem bench machine --json printed',
    )
    .option('--all', 'the Program itself, one line a step with its operands')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem explain                                  the model that ships; layers that are the same share their lines
  tandem explain DeepSeek-V3-Q4_K_M-00001-of-00010.gguf --rules my.yaml
  tandem explain --rules one-gpu --machine server.json     as it would be placed there
  tandem explain deepseek-v3 -q q5_k --machine server.json     before a download
  tandem explain --all | less                     every step with its operands
  tandem explain --json | jq '.steps[].op'        the same for programs`,
    )
    .action(async (model: string | undefined, flags: Flags) => {
      const checkpoint = await openDescribed(flags, model);
      try {
        await explain(checkpoint, flags);
      } finally {
        await checkpoint.close();
      }
    });
}

/** Headers of weights that are here, or of those that a description would have. */
async function openDescribed(flags: Flags, argument: string | undefined): Promise<Checkpoint> {
  const description = descriptionOf(modelPath(flags, argument));
  if (description === undefined) return openCheckpoint(await localPath(flags, argument));
  return headerCheckpoint(await configOf(description), { name: description, mix: flags.quant });
}

/** Output rows of a pass, as the engine takes them. */
const OUTPUTS = 64;

async function explain(checkpoint: Checkpoint, flags: Flags): Promise<void> {
  const { program: whole } = await buildProgram(checkpoint);
  const program = deferredOf(flags, whole);
  const machine = await machineOf(flags.machine);
  const own = machine.devices?.find(({ name }) => name === machine.device)?.memory ?? availableMemory();
  const wanted = {
    available: Math.min(own, flags.memory ?? Infinity),
    vram: flags.vram,
    contextLength: flags.context,
    maxRows: PASS.rows,
  };
  const automatic = decidePlacement(whole, machine, wanted);
  const rules = await rulesOf(flags, program);
  const { exact = false } = flags;
  const sharing = sharingRequest(flags, { exact, rounded: true, judging: false, maxRows: PASS.rows });
  const options = { exact: flags.exact, rules: [...rules, ...automatic.rules] };
  const phases = lowerPhases(program, machine, options);
  const moves = PHASES.map((phase) =>
    phases[phase].steps.map(({ name, placement }) => `${name} ${placement?.device}`).join(),
  );
  // Where devices differ there are two Programs, else the steps themselves say what decode changes.
  const programs: (readonly [string, Program])[] =
    moves[0] === moves[1]
      ? [['', lowerBoth(program, machine, options)]]
      : [
          ['passes that read prompts', phases.prefill],
          ['passes that generate', phases.decode],
        ];
  const placed = programs.map(([, each]) => each);
  // What `load` would refuse is refused after what shows why.
  const check = () => rules.length > 0 && checkPlaced(placed, machine, { ...wanted, maxOutputs: OUTPUTS });
  if (flags.json) {
    const [[, first], [, decode] = []] = programs;
    process.stdout.write(`${JSON.stringify({ ...jsonOf(first), ...(decode && { decode: jsonOf(decode) }) })}\n`);
    check();
    return;
  }
  for (const [title, each] of programs) {
    if (title) process.stdout.write(`${paint('bold', title)}\n`);
    const text = flags.all
      ? printProgram(each)
      : `${heading(each)}\n\n${renderGroups(groupLayers(explainSteps(each)))}\n`;
    process.stdout.write(`${text}\n${paint('bold', 'weights by op')}\n${byOp(each)}\n\n`);
  }
  process.stdout.write(`${paint('bold', 'memory')}\n${byDevice(placed, machine)}\n`);
  const shared = describeSharing(placed[0], machine, {
    ...wanted,
    modelContext: program.contextLength,
    maxOutputs: OUTPUTS,
    sharing,
  });
  const measured = flags.machine === undefined ? await readHits(hitsKey(checkpoint, program)) : undefined;
  if (measured !== undefined) shared.push(`measured here: ${describeHits(measured)}`);
  if (shared.length > 0)
    process.stdout.write(`\n${paint('bold', 'experts of the CPU that GPUs compute')}\n${shared.join('\n')}\n`);
  if (flags.machine === undefined && programs.length === 1) await kernels(placed[0]);
  process.stdout.write(`\n${paint('bold', 'budget')}\n${automatic.fit.reason}\n`);
  check();
}

/** Of this machine's cards: how much of what they are to compute was checked on them. */
async function kernels(placed: Program): Promise<void> {
  const { kinds, known } = await checkedBefore(placed, PASS.rows);
  if (kinds === 0) return;
  const others = known < kinds ? '; the others are held against the reference when the model is loaded' : '';
  const words = `${known} of ${kinds} kinds of steps were right before${others}`;
  process.stdout.write(`\n${paint('bold', 'kernels checked on this card')}\n${words}\n`);
}

/** The Program's own first lines. */
function heading(program: Program): string {
  return printProgram({ ...program, steps: [] })
    .trimEnd()
    .replace(', 0 steps,', `, ${program.steps.length} steps,`);
}

function jsonOf(program: Program) {
  const why = explainSteps(program);
  const steps = program.steps.map((step, index) => ({
    ...step,
    weightBytes: stepBytes(program, step),
    kernel: why[index].kernel,
    why: why[index].why,
  }));
  return { ...program, steps };
}

/** What each device holds, and how many tokens of cache its memory has room for beside it. */
function byDevice(programs: readonly Program[], { devices }: Machine): string {
  const tokens = programs[0].kv.pageTokens;
  const lines = memoryByDevice(programs, { pages: 0, maxRows: PASS.rows, maxOutputs: OUTPUTS }).map(
    ({ device, weights, buffers, kernels, pageBytes }) => {
      const memory = devices?.find(({ name }) => name === device)?.memory;
      const left = memory === undefined ? 0 : memory - weights - buffers - kernels;
      const room = Math.floor(left / pageBytes) * tokens;
      const verdict =
        memory === undefined
          ? ''
          : left < 0
            ? paint('red', `does not fit ${formatBytes(memory)}`)
            : `of ${formatBytes(memory)}${pageBytes > 0 ? `: room for a cache of ${room} tokens` : ''}`;
      return [
        device,
        `weights ${formatBytes(weights)}`,
        `cache ${formatBytes(Math.round(pageBytes / tokens))} a token`,
        `buffers of ${PASS.rows} rows ${formatBytes(buffers + kernels)}`,
        verdict,
      ];
    },
  );
  return table(lines);
}

/** Bytes of the weights that a step names; of experts all, not only those a token activates. */
function stepBytes(program: Program, step: Step): number {
  return step.inputs.reduce(
    (sum, input) => (input?.kind === 'weight' ? sum + weightBytes(program.weights[input.weight]) : sum),
    0,
  );
}

function byOp(program: Program): string {
  const totals = new Map<string, { steps: number; bytes: number }>();
  const counted = new Set<number>();
  for (const { op, inputs } of program.steps) {
    const total = totals.get(op) ?? { steps: 0, bytes: 0 };
    total.steps++;
    for (const input of inputs) {
      // Late experts are those of the layer, in a step of their own.
      if (input?.kind !== 'weight' || counted.has(input.weight)) continue;
      counted.add(input.weight);
      total.bytes += weightBytes(program.weights[input.weight]);
    }
    totals.set(op, total);
  }
  return table(
    [...totals]
      .sort((a, b) => b[1].bytes - a[1].bytes)
      .map(([op, { steps, bytes }]) => [op, `${steps} steps`, bytes > 0 ? formatBytes(bytes) : '–']),
    'lrr',
  );
}
