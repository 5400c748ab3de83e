/**
 * `tandem synth PRESET OUT`: a file with a public model's true shapes and random weights, to measure before downloading.
 * GGUF, or a Hugging Face folder where OUT does not end in .gguf.
 */
import { mkdir, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { TandemError } from '../errors.ts';
import { rowBytes } from '../formats/dtype.ts';
import { fileSinkFolder } from '../formats/file-sink.ts';
import { fileError } from '../formats/file-source.ts';
import { writeGguf } from '../formats/gguf-writer.ts';
import { SINGLE_FILE } from '../formats/huggingface.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { writeSafetensors } from '../formats/safetensors-writer.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { QUANT_MIXES, type QuantMix } from '../models/quant-mix.ts';
import { synthesize } from '../models/synthesize.ts';
import { FOLDER_FORMATS, type FolderFormat, synthesizeFolder } from '../models/synthesize-folder.ts';
import type { HuggingFaceConfig, SyntheticTensor } from '../models/synthetic.ts';
import { configOf, descriptionOf } from './description.ts';
import { count, memorySize, positive } from './options.ts';
import { formatBytes, ProgressBar } from './terminal.ts';

interface Flags {
  quant: QuantMix | FolderFormat;
  layers?: number;
  seed: number;
  split?: number;
  json?: boolean;
}

export function addSynth(cli: Command): void {
  cli
    .command('synth')
    .description("write a file with a model's true shapes and random weights, for measuring")
    .argument('<model>', `${Object.keys(PUBLIC_CONFIGS).join(', ')}, or a config.json`)
    .argument('<out>', 'GGUF file to write, ends in .gguf; else a Hugging Face folder')
    .addOption(
      new Option('-q, --quant <mix>', `weight formats; of folders ${FOLDER_FORMATS.join(', ')}`)
        .choices([...new Set([...QUANT_MIXES, ...FOLDER_FORMATS])])
        .default('q4_k_m'),
    )
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
  tandem synth deepseek-v3 v3.gguf -q iq1_s --layers 9  experts of 1.58 bits, as dynamic files have them
  tandem synth deepseek-v3 ./v3-fp8 -q f8_e4m3 --layers 4
  tandem synth ./config.json mine.gguf -q q8_0 --split 4GB`,
    )
    .action(synth);
}

async function synth(model: string, out: string, flags: Flags): Promise<void> {
  const config = sliced(await described(model), flags.layers);
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const bar = new ProgressBar('writing');
  const watch = {
    onProgress: (written: number, total: number) => bar.update(written, total),
    signal: interrupt.signal,
  };
  try {
    const written = await (out.endsWith('.gguf')
      ? writeFileOf(config, model, out, flags, watch)
      : writeFolderOf(config, model, out, flags, watch));
    bar.end();
    const { files, tensors, bytes } = written;
    process.stdout.write(
      flags.json
        ? `${JSON.stringify({ files, bytes, tensors })}\n`
        : `${files.join(', ')}: ${tensors} tensors, ${formatBytes(bytes)}\n`,
    );
  } finally {
    bar.end();
  }
}

interface Watch {
  onProgress(written: number, total: number): void;
  readonly signal: AbortSignal;
}
interface Written {
  readonly files: readonly string[];
  readonly tensors: number;
  readonly bytes: number;
}

async function writeFileOf(
  config: HuggingFaceConfig,
  model: string,
  out: string,
  { quant, seed, split }: Flags,
  watch: Watch,
): Promise<Written> {
  const mix = QUANT_MIXES.find((each) => each === quant);
  if (mix === undefined) throw notIn('a GGUF file', model, out.replace(/\.gguf$/, ''), quant);
  const content = await synthesize(config, { name: `${basename(model, '.json')} synthetic`, mix, seed });
  const folder = dirname(resolve(out));
  const bytes = content.tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  await checkSpace(folder, bytes);
  const files = await writeGguf(fileSinkFolder(folder), basename(out), { ...content, shardBytes: split, ...watch });
  return { files, tensors: content.tensors.length, bytes };
}

async function writeFolderOf(
  config: HuggingFaceConfig,
  model: string,
  out: string,
  { quant, seed, split }: Flags,
  watch: Watch,
): Promise<Written> {
  const format = FOLDER_FORMATS.find((each) => each === quant);
  if (format === undefined) throw notIn('a Hugging Face folder', model, `${out}.gguf`, quant);
  if (split !== undefined)
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: '--split is for GGUF files',
      given: `${out} is a folder`,
      fix: 'leave it out',
    });
  const { files, tensors } = await synthesizeFolder(config, { format, seed });
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  await mkdir(out, { recursive: true }).catch((cause) => {
    throw fileError('write', out, cause);
  });
  await checkSpace(out, bytes);
  await writeSafetensors(fileSinkFolder(out), SINGLE_FILE, tensors, watch);
  for (const [name, text] of Object.entries(files))
    await writeFile(join(out, name), text).catch((cause) => {
      throw fileError('write', join(out, name), cause);
    });
  return { files: [...Object.keys(files), SINGLE_FILE], tensors: tensors.length, bytes };
}

function notIn(container: string, model: string, other: string, quant: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'cli',
    rule: `${container} has weights in ${(container === 'a GGUF file' ? QUANT_MIXES : FOLDER_FORMATS).join(', ')}`,
    given: quant,
    fix: `tandem synth ${model} ${other} -q ${quant}, or another --quant`,
  });
}

function tensorBytes({ shape, format }: SyntheticTensor): number {
  const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
  return rows * rowBytes(quantFormat(format), shape[shape.length - 1]);
}

/** Fewer layers than the description has; REQUEST_INVALID for more. */
function sliced(config: HuggingFaceConfig, layers: number | undefined): HuggingFaceConfig {
  const all = config.num_hidden_layers;
  if (layers === undefined) return config;
  if (typeof all === 'number' && layers > all)
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: '--layers takes a slice of the model',
      given: `it has ${all} layers, ${layers} were asked for`,
      fix: 'leave it out for the whole model',
    });
  return { ...config, num_hidden_layers: layers };
}

/** REQUEST_INVALID for a name that describes no model. */
function described(given: string): Promise<HuggingFaceConfig> {
  const description = descriptionOf(given);
  if (description !== undefined) return configOf(description);
  throw new TandemError('FILE_NOT_FOUND', {
    room: 'cli',
    rule: 'synth takes a known model, a config.json or the folder it is in',
    given: `${given} is none of them`,
    fix: `known models: ${Object.keys(PUBLIC_CONFIGS).join(', ')}`,
  });
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
