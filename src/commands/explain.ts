/** `tandem explain`: the placed Program as text: every step, where it runs, in which formats, how many bytes it reads. */
import type { Command } from 'commander';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';
import { weightBytes } from '../placement/budget.ts';
import { lower } from '../placement/lower.ts';
import { nativeMachine } from '../placement/machine.ts';
import { printProgram } from '../program/print.ts';
import type { Program, Step } from '../program/program.ts';
import { localPath } from './model-name.ts';
import { EXACT, MODEL, withModelPath } from './options.ts';
import { formatBytes, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  exact?: boolean;
  json?: boolean;
}

export function addExplain(cli: Command): void {
  const command = cli
    .command('explain')
    .description('the placed Program: every step, its device, formats and bytes (reads headers only)')
    .argument('[model]', MODEL);
  withModelPath(command)
    .option('--exact', EXACT)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem explain | less                           every step of the model that ships
  tandem explain DeepSeek-V3-Q4_K_M-00001-of-00010.gguf
  tandem explain --json | jq '.steps[].op'        the same for programs`,
    )
    .action(async (model: string | undefined, flags: Flags) => {
      const checkpoint = await openCheckpoint(await localPath(flags, model));
      try {
        await explain(checkpoint, flags);
      } finally {
        await checkpoint.close();
      }
    });
}

async function explain(checkpoint: Checkpoint, { exact, json }: Flags): Promise<void> {
  const { program } = await buildProgram(checkpoint);
  const placed = lower(program, nativeMachine(), { exact });
  if (json) {
    const steps = placed.steps.map((step) => ({ ...step, weightBytes: stepBytes(placed, step) }));
    process.stdout.write(`${JSON.stringify({ ...placed, steps })}\n`);
    return;
  }
  process.stdout.write(`${printProgram(placed)}\n${paint('bold', 'weights by op')}\n${byOp(placed)}\n`);
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
  for (const step of program.steps) {
    const total = totals.get(step.op) ?? { steps: 0, bytes: 0 };
    total.steps++;
    total.bytes += stepBytes(program, step);
    totals.set(step.op, total);
  }
  return table(
    [...totals]
      .sort((a, b) => b[1].bytes - a[1].bytes)
      .map(([op, { steps, bytes }]) => [op, `${steps} steps`, bytes > 0 ? formatBytes(bytes) : '–']),
    'lrr',
  );
}
