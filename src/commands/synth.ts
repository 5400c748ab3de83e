/** `tandem synth PRESET OUT`: a GGUF file with a public model's true shapes and random weights, to measure before downloading. */
import { readFile, statfs } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { TandemError } from '../errors.ts';
import { rowBytes } from '../formats/dtype.ts';
import { fileSinkFolder } from '../formats/file-sink.ts';
import { writeGguf } from '../formats/gguf-writer.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { QUANT_MIXES, type QuantMix } from '../models/quant-mix.ts';
import { synthesize } from '../models/synthesize.ts';
import type { HuggingFaceConfig, SyntheticTensor } from '../models/synthetic.ts';
import { count, memorySize, positive } from './options.ts';
import { formatBytes, ProgressBar } from './terminal.ts';

interface Flags {
  quant: QuantMix;
  layers?: number;
  seed: number;
  split?: number;
  json?: boolean;
}

export function addSynth(cli: Command): void {
  cli
    .command('synth')
    .description("write a GGUF file with a model's true shapes and random weights, for measuring")
    .argument('<model>', `${Object.keys(PUBLIC_CONFIGS).join(', ')}, or a config.json`)
    .argument('<out>', 'file to write, ends in .gguf')
    .addOption(new Option('-q, --quant <mix>', 'weight formats').choices(QUANT_MIXES).default('q4_k_m'))
    .option('--layers <n>', 'fewer layers than the model has', positive)
    .option('--seed <n>', 'same seed, same bytes', count, 1)
    .option('--split <size>', 'split into files of about this size, e.g. 40GB', memorySize)
    .option('--json', 'describe what was written as a JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem synth deepseek-v2-lite lite.gguf               the true shapes, as Q4_K_M (10 GB)
  tandem synth deepseek-v3 v3.gguf --layers 5           a slice that fits a laptop
  tandem synth ./config.json mine.gguf -q q8_0 --split 4GB`,
    )
    .action(synth);
}

async function synth(model: string, out: string, flags: Flags): Promise<void> {
  if (!out.endsWith('.gguf')) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'synth writes a GGUF file',
      given: `${out} does not end in .gguf`,
      fix: `tandem synth ${model} ${out}.gguf`,
    });
  }
  const known = await configOf(model);
  const config = flags.layers === undefined ? known : { ...known, num_hidden_layers: flags.layers };
  const name = `${basename(model, '.json')} synthetic`;
  const content = await synthesize(config, { name, mix: flags.quant, seed: flags.seed });
  const folder = dirname(resolve(out));
  const bytes = content.tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  await checkSpace(folder, bytes);

  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const bar = new ProgressBar('writing');
  try {
    const files = await writeGguf(fileSinkFolder(folder), basename(out), {
      ...content,
      shardBytes: flags.split,
      onProgress: (written, total) => bar.update(written, total),
      signal: interrupt.signal,
    });
    bar.end();
    process.stdout.write(
      flags.json
        ? `${JSON.stringify({ files, bytes, tensors: content.tensors.length })}\n`
        : `${files.join(', ')}: ${content.tensors.length} tensors, ${formatBytes(bytes)}\n`,
    );
  } finally {
    bar.end();
  }
}

function tensorBytes({ shape, format }: SyntheticTensor): number {
  const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
  return rows * rowBytes(quantFormat(format), shape[shape.length - 1]);
}

async function configOf(model: string): Promise<HuggingFaceConfig> {
  if (Object.hasOwn(PUBLIC_CONFIGS, model)) return PUBLIC_CONFIGS[model as keyof typeof PUBLIC_CONFIGS];
  try {
    return JSON.parse(await readFile(model, 'utf8')) as HuggingFaceConfig;
  } catch (cause) {
    throw new TandemError('FILE_NOT_FOUND', {
      room: 'cli',
      rule: 'synth takes a known model or a config.json',
      given: `${model} is neither (${(cause as Error).message})`,
      fix: `known models: ${Object.keys(PUBLIC_CONFIGS).join(', ')}`,
      cause,
    });
  }
}

async function checkSpace(folder: string, bytes: number): Promise<void> {
  const space = await statfs(folder).catch(() => undefined); // a missing folder is the writer's message
  if (space === undefined) return;
  const free = space.bavail * space.bsize;
  if (free > bytes || space.blocks === 0) return; // no disk at all: the writer's message, too
  throw new TandemError('FILE_IO', {
    room: 'cli',
    rule: 'the disk must have room for the file',
    given: `${formatBytes(bytes)} are needed in ${folder}, ${formatBytes(free)} are free`,
    fix: 'free some space, write elsewhere, or take fewer --layers',
  });
}
