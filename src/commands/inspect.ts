/** `tandem inspect [FILE]`: what a checkpoint is, from its headers alone: architecture, sizes, formats, metadata, tensors. */
import type { Command } from 'commander';
import type { Checkpoint, MetadataValue, TensorInfo } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';
import { KV_BYTES, kvElementsPerToken } from '../program/program.ts';
import { localPath } from './model-name.ts';
import { MODEL, withModelPath } from './options.ts';
import { formatBytes, formatCount, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  json?: boolean;
  all?: boolean;
}

export function addInspect(cli: Command): void {
  const command = cli
    .command('inspect')
    .description('what a model file is: architecture, sizes, metadata, tensors (reads headers only)')
    .argument('[model]', MODEL);
  withModelPath(command)
    .option('--all', 'list every tensor instead of one line per kind')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem inspect model.gguf                       what it is, how large, in which formats
  tandem inspect ./Qwen3-30B-A3B --all            every tensor of a Hugging Face folder
  tandem inspect model.gguf --json | jq .model    the same for programs`,
    )
    .action(async (model: string | undefined, flags: Flags) => {
      const checkpoint = await openCheckpoint(await localPath(flags, model));
      try {
        const report = await describe(checkpoint);
        process.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : render(report, flags.all === true));
      } finally {
        await checkpoint.close();
      }
    });
}

type Report = Awaited<ReturnType<typeof describe>>;

async function describe(checkpoint: Checkpoint) {
  const tensors = [...checkpoint.tensors.values()];
  return {
    name: checkpoint.name,
    container: checkpoint.kind,
    files: checkpoint.files.map((file) => ({ name: file.name, bytes: file.size })),
    model: await describeModel(checkpoint),
    parameters: tensors.reduce((sum, tensor) => sum + elements(tensor), 0),
    bytes: tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    formats: formatShares(tensors),
    metadata: describeMetadata(checkpoint),
    tensors: tensors.map(({ name, shape, format, bytes, file }) => ({ name, shape, format, bytes, file })),
  };
}

/** What the Program says, or why there is none: an unknown architecture can still be looked at. */
async function describeModel(checkpoint: Checkpoint) {
  try {
    const { program, config, unused } = await buildProgram(checkpoint);
    const experts = program.weights.filter((weight) => weight.shape.length === 3 && /exp/.test(weight.name));
    const expertBytes = [...new Set(experts.flatMap((weight) => weight.parts))].reduce(
      (sum, part) => sum + (checkpoint.tensors.get(part)?.bytes ?? 0),
      0,
    );
    const router = program.steps.find((step) => step.op === 'router');
    return {
      architecture: program.name,
      layers: config.layers,
      hiddenSize: config.hiddenSize,
      vocabSize: program.vocabSize,
      contextLength: program.contextLength,
      experts: experts[0]?.shape[0] ?? 0,
      expertsPerToken: router ? Number(router.attributes.topk) : 0,
      moeLayers: program.steps.filter((step) => step.op === 'experts').length,
      expertBytes,
      kvBytesPerToken: kvElementsPerToken(program.kv) * KV_BYTES[program.kv.type],
      steps: program.steps.length,
      unusedTensors: unused,
    };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

function elements(tensor: TensorInfo): number {
  return tensor.shape.reduce((product, dimension) => product * dimension, 1);
}

function formatShares(tensors: readonly TensorInfo[]) {
  const shares = new Map<string, { tensors: number; parameters: number; bytes: number }>();
  for (const tensor of tensors) {
    const share = shares.get(tensor.format) ?? { tensors: 0, parameters: 0, bytes: 0 };
    share.tensors++;
    share.parameters += elements(tensor);
    share.bytes += tensor.bytes;
    shares.set(tensor.format, share);
  }
  return [...shares].map(([format, share]) => ({ format, ...share })).sort((a, b) => b.bytes - a.bytes);
}

function describeMetadata(checkpoint: Checkpoint): Record<string, unknown> {
  if (checkpoint.kind === 'huggingface') return { ...checkpoint.config };
  return Object.fromEntries([...checkpoint.metadata].map(([key, value]) => [key, describeValue(value)]));
}

/** Long arrays are named by type and length; 64-bit integers stay exact as text. */
function describeValue(value: MetadataValue): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object') return value;
  return value.length <= 16 ? value.toArray().map(describeValue) : `${value.type}[${value.length}]`;
}

function render(report: Report, all: boolean): string {
  const out: string[] = [paint('bold', report.name), ''];
  const { model } = report;
  if ('error' in model && model.error !== undefined) out.push(paint('yellow', model.error), '');
  else out.push(summary(report, model), '');
  out.push(
    paint('bold', 'formats'),
    table(
      report.formats.map((share) => [
        share.format,
        `${share.tensors} tensors`,
        formatCount(share.parameters),
        formatBytes(share.bytes),
        `${((share.bytes * 8) / share.parameters).toFixed(2)} bits`,
      ]),
      'lrrrr',
    ),
    '',
    paint('bold', report.container === 'gguf' ? 'metadata' : 'config.json'),
    table(Object.entries(report.metadata).map(([key, value]) => [key, shorten(value)])),
    '',
    paint('bold', all ? 'tensors' : 'tensors (one line per kind; --all lists each)'),
    table(all ? tensorRows(report.tensors) : tensorKinds(report.tensors), 'lllrr'),
    '',
  );
  return out.join('\n');
}

function summary(report: Report, model: Exclude<Report['model'], { error: string }>): string {
  const rows = [
    ['architecture', `${model.architecture}`],
    ['parameters', formatCount(report.parameters)],
    ['size', `${formatBytes(report.bytes)} in ${report.files.length} file${report.files.length === 1 ? '' : 's'}`],
    ['layers', `${model.layers}, hidden size ${model.hiddenSize}, vocabulary ${model.vocabSize}`],
  ];
  if (model.experts > 0) {
    rows.push([
      'experts',
      `${model.experts} in each of ${model.moeLayers} layers, ${model.expertsPerToken} per token, ` +
        `${formatBytes(model.expertBytes)} (${((model.expertBytes / report.bytes) * 100).toFixed(0)} % of the weights)`,
    ]);
  }
  rows.push(['context', `${model.contextLength} tokens, ${formatBytes(model.kvBytesPerToken)} of cache each (bf16)`]);
  if (model.unusedTensors.length > 0)
    rows.push(['not used', `${model.unusedTensors.length} tensors, e.g. ${model.unusedTensors[0]}`]);
  return table(rows);
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 100 ? `${text.slice(0, 97)}…` : text;
}

type TensorLine = Report['tensors'][number];

function tensorRows(tensors: readonly TensorLine[]): string[][] {
  return tensors.map((tensor) => [
    tensor.name,
    `[${tensor.shape.join(', ')}]`,
    tensor.format,
    '',
    formatBytes(tensor.bytes),
  ]);
}

/** Tensors that differ only in their numbers (layer, expert) share a line. */
function tensorKinds(tensors: readonly TensorLine[]): string[][] {
  const kinds = new Map<string, { count: number; bytes: number; row: string[] }>();
  for (const tensor of tensors) {
    const name = tensor.name.replace(/\b\d+\b/g, 'N');
    const shape = `[${tensor.shape.join(', ')}]`;
    const key = `${name} ${shape} ${tensor.format}`;
    const kind = kinds.get(key) ?? { count: 0, bytes: 0, row: [name, shape, tensor.format] };
    kind.count++;
    kind.bytes += tensor.bytes;
    kinds.set(key, kind);
  }
  return [...kinds.values()].map(({ row, count, bytes }) => [...row, `×${count}`, formatBytes(bytes)]);
}
