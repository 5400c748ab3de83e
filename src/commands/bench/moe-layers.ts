/**
 * MoE layers without a model around them: embed, then router → experts → add for every layer, with random weights of a
 * given shape. Each layer has bytes of its own in memory (copies of the same ones on disk, which nobody can tell), so that
 * a pass walks through more weights than a cache holds. The routers differ.
 */
import { rmSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Checkpoint, TensorInfo } from '../../formats/checkpoint.ts';
import { type FormatName, rowBytes } from '../../formats/dtype.ts';
import { fileError, openFile } from '../../formats/file-source.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import { Graph } from '../../models/graph.ts';
import { routedExperts, softmaxRouter } from '../../models/layers/moe.ts';
import { randomTensor } from '../../models/synthesize.ts';
import { WeightSource } from '../../models/weights.ts';
import { OPS } from '../../ops/index.ts';
import { lower, type Machine } from '../../placement/lower.ts';
import type { Program } from '../../program/program.ts';
import { validateProgram } from '../../program/validate.ts';

export interface MoeShape {
  readonly hidden: number;
  /** Width of one expert. */
  readonly intermediate: number;
  readonly experts: number;
  readonly topk: number;
  readonly format: FormatName;
  readonly layers: number;
}

/** Bytes of gate, up and down of one expert. */
export function expertBytes({ hidden, intermediate, format }: Omit<MoeShape, 'layers'>): number {
  const quant = quantFormat(format);
  return 2 * intermediate * rowBytes(quant, hidden) + hidden * rowBytes(quant, intermediate);
}

/**
 * The placed Program over `vocabulary` tokens, and its weights in a temporary file that `close` (or Ctrl-C) removes. PROGRAM_INVALID
 * where the format does not divide the shape, FILE_IO where the temporary folder has no room for one layer.
 */
export async function moeLayers(
  shape: MoeShape,
  vocabulary: number,
  placing: { readonly machine?: Machine; readonly exact?: boolean } = {},
): Promise<{ program: Program; checkpoint: Checkpoint }> {
  const tensors = layout(shape, vocabulary);
  const { experts, intermediate: ffn, topk, layers } = shape;
  const graph = new Graph(new WeightSource(headers(tensors)));
  let x = graph.embed('model.embed_tokens', vocabulary, shape.hidden);
  for (let index = 0; index < layers; index++) {
    const layer = graph.layer(index);
    const moe = { experts, ffn, router: softmaxRouter(topk, true) };
    x = layer.add('residual', x, routedExperts(layer, 'mlp', x, moe));
  }
  const last = graph.gatherRows('output_rows', x);
  const embeddings = graph.weight('model.embed_tokens', [vocabulary, shape.hidden]);
  const logits = graph.linear('lm_head', last, vocabulary, { weight: embeddings });
  const unplaced = graph.finish('moe-layers', logits, { kvType: 'bf16', contextLength: vocabulary });
  const { machine = { device: 'cpu' }, exact } = placing;
  const program = lower(validateProgram(unplaced, OPS), machine, { exact });
  return { program, checkpoint: await written(tensors, layers) };
}

/** File 0 has what is outside the experts; file l + 1 stands for the experts of layer l, and all are one file on disk. */
function layout({ hidden, intermediate, experts, format, layers }: MoeShape, vocabulary: number): TensorInfo[] {
  const tensors: TensorInfo[] = [];
  let end = 0;
  const add = (name: string, shape: readonly number[], type: FormatName, file: number, offset = end) => {
    const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
    const bytes = rows * rowBytes(quantFormat(type), shape[shape.length - 1]);
    tensors.push({ name, shape, format: type, file, offset, bytes });
    end = Math.max(end, Math.ceil((offset + bytes) / 64) * 64);
  };
  add('token_embd.weight', [vocabulary, hidden], 'bf16', 0);
  for (let l = 0; l < layers; l++) add(`blk.${l}.ffn_gate_inp.weight`, [experts, hidden], 'f32', 0);
  const start = end;
  for (let l = 0; l < layers; l++) {
    let at = start;
    for (const [projection, shape] of [
      ['gate', [experts, intermediate, hidden]],
      ['up', [experts, intermediate, hidden]],
      ['down', [experts, hidden, intermediate]],
    ] as const) {
      add(`blk.${l}.ffn_${projection}_exps.weight`, shape, format, l + 1, at);
      at = Math.ceil((at + tensors[tensors.length - 1].bytes) / 64) * 64;
    }
  }
  return tensors;
}

function headers(tensors: readonly TensorInfo[]): Checkpoint {
  return {
    kind: 'gguf',
    name: 'moe-layers',
    files: [],
    tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])),
    metadata: new Map(),
    readTensor: () => Promise.reject(new Error('headers only')),
    close: async () => {},
  };
}

async function written(tensors: readonly TensorInfo[], layers: number): Promise<Checkpoint> {
  const folder = await mkdtemp(join(tmpdir(), 'tandem-bench-'));
  const path = join(folder, 'weights.bin');
  const interrupted = () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  };
  process.once('SIGINT', interrupted);
  const remove = () => {
    process.off('SIGINT', interrupted);
    return rm(folder, { recursive: true, force: true });
  };
  try {
    await writeTensors(
      path,
      tensors.filter(({ file }) => file <= 1),
    );
    const source = await openFile(path);
    return {
      ...headers(tensors),
      files: Array.from({ length: layers + 1 }, () => source),
      readTensor: (name, start = 0, end) => {
        const { offset, bytes, shape } = tensors.find((tensor) => tensor.name === name)!;
        const slice = bytes / shape[0];
        return source.read(offset + start * slice, offset + (end ?? shape[0]) * slice);
      },
      close: () => source.close().then(remove),
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function writeTensors(path: string, tensors: readonly TensorInfo[]): Promise<void> {
  const failed = (cause: unknown): never => {
    throw fileError('write', path, cause);
  };
  const handle = await open(path, 'wx').catch(failed);
  try {
    for (const { name, shape, format, offset } of tensors) {
      let at = offset;
      for (const chunk of randomTensor({ name, shape, format: format as FormatName }, 1)) {
        await handle.write(chunk, 0, chunk.length, at).catch(failed);
        at += chunk.length;
      }
    }
  } finally {
    await handle.close();
  }
}
