/** `tandem bench WHAT`: how fast it is here, with machine, commit and, where it can be said, the share of what the machine gives. */
import type { Command } from 'commander';
import { addBenchExperts } from './bench/experts.ts';
import { addBenchLoad } from './bench/load.ts';
import { addBenchMachine } from './bench/machine.ts';
import { addBenchModel } from './bench/model.ts';
import { addBenchOps } from './bench/ops.ts';

export function addBench(cli: Command): void {
  const bench = cli
    .command('bench')
    .description('measure: a model, one MoE layer, the ops of a pass, loading, the machine')
    .addHelpText(
      'after',
      `
Examples:
  tandem bench model model.gguf --prompt 512 --generate 64
  tandem bench experts --hidden 7168 --intermediate 2048 --experts 16 --topk 8
  tandem bench machine`,
    );
  for (const add of [addBenchModel, addBenchExperts, addBenchOps, addBenchLoad, addBenchMachine]) add(bench);
}
