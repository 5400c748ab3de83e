/** What a server tells about a checkpoint before (and without) loading it: read from headers. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';

export interface ModelCard {
  /** Stable across restarts: history of web front ends refers to it. */
  readonly id: string;
  readonly created: number;
  readonly size: number;
  readonly parameters: number;
  readonly architecture: string;
  /** The format that holds most bytes: `q4_k` … */
  readonly quantization: string;
  readonly format: 'gguf' | 'huggingface';
  readonly contextLength: number;
  readonly layers: number;
  readonly hiddenSize: number;
  /** sha256 of names, shapes, formats and places of all tensors: names the file without reading it. */
  readonly digest: string;
}

export async function readModelCard(path: string): Promise<ModelCard> {
  const checkpoint = await openCheckpoint(path);
  try {
    const { program, config } = await buildProgram(checkpoint);
    const tensors = [...checkpoint.tensors.values()];
    const elements = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);
    return {
      id: modelName(path),
      created: Math.floor((await stat(path)).mtimeMs / 1000),
      size: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      parameters: tensors.reduce((sum, { shape }) => sum + elements(shape), 0),
      architecture: program.name,
      quantization: mainFormat(checkpoint),
      format: checkpoint.kind,
      contextLength: program.contextLength,
      layers: config.layers,
      hiddenSize: config.hiddenSize,
      digest: digest(checkpoint),
    };
  } finally {
    await checkpoint.close();
  }
}

/** File or folder name without container, split number and trailing slashes; of a folder of the hub's cache the model's. */
export function modelName(path: string): string {
  const cached = /models--[^/]+--([^/]+)\/snapshots\/[^/]+\/?$/.exec(path)?.[1];
  if (cached !== undefined) return cached;
  const base = path.replace(/\/+$/, '').split('/').at(-1) ?? '';
  const name = base.replace(/\.gguf$/i, '').replace(/-\d{5}-of-\d{5}$/, '');
  return name === '' || name === '.' || name === '..' ? 'model' : name;
}

function mainFormat(checkpoint: Checkpoint): string {
  const bytes = new Map<string, number>();
  for (const tensor of checkpoint.tensors.values())
    bytes.set(tensor.format, (bytes.get(tensor.format) ?? 0) + tensor.bytes);
  return [...bytes].sort(([, a], [, b]) => b - a)[0]?.[0] ?? 'unknown';
}

function digest(checkpoint: Checkpoint): string {
  const hash = createHash('sha256');
  for (const { name, shape, format, offset } of checkpoint.tensors.values())
    hash.update(`${name} ${shape.join('x')} ${format} ${offset}\n`);
  return hash.digest('hex');
}
