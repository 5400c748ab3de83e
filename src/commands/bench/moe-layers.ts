/**
 * MoE layers without a model around them: embed, then router → experts → add for every layer, with random weights of a
 * given shape. Each layer has bytes of its own in memory (copies of the same ones on disk, which nobody can tell), so that
 * a pass walks through more weights than a cache holds. The routers differ.
 */
import type { Checkpoint, TensorInfo } from '../../formats/checkpoint.ts';
import type { FormatName } from '../../formats/dtype.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import type { Projection } from '../../models/gguf-names.ts';
import { Graph } from '../../models/graph.ts';
import { routedExperts, softmaxRouter } from '../../models/layers/moe.ts';
import { randomScales, randomTensor } from '../../models/random-tensor.ts';
import type { SyntheticTensor } from '../../models/synthetic.ts';
import type { WeightFinder } from '../../models/weights.ts';
import { OPS } from '../../ops/index.ts';
import { lower, type Machine } from '../../placement/lower.ts';
import type { Program } from '../../program/program.ts';
import type { Weight } from '../../program/tensor.ts';
import { validateProgram } from '../../program/validate.ts';
import { aligned, matrixBytes, type Stretch, scaleBytes, scaleShape, temporaryWeights } from './temporary-weights.ts';

export interface MoeShape {
  readonly hidden: number;
  /** Width of one expert. */
  readonly intermediate: number;
  readonly experts: number;
  readonly topk: number;
  readonly format: FormatName;
  readonly layers: number;
}

/** Bytes of gate, up and down of one expert, with their scales. */
export function expertBytes({ hidden, intermediate, format }: Omit<MoeShape, 'layers'>): number {
  const of = (shape: readonly [number, number]) => matrixBytes(shape, format) + scaleBytes(shape, format);
  return 2 * of([intermediate, hidden]) + of([hidden, intermediate]);
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
  const graph = new Graph(new LayerWeights(tensors));
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
  const add = (name: string, shape: readonly number[], type: FormatName, file: number, offset = end): number => {
    const bytes = matrixBytes(shape, type);
    tensors.push({ name, shape, format: type, file, offset, bytes });
    let next = aligned(offset + bytes);
    if (quantFormat(type).scaleBlock) {
      const scales = { name: name + SCALES, shape: scaleShape(shape, type), format: type };
      tensors.push({ ...scales, file, offset: next, bytes: scaleBytes(shape, type) });
      next = aligned(next + scaleBytes(shape, type));
    }
    end = Math.max(end, next);
    return next;
  };
  add('model.embed_tokens.weight', [vocabulary, hidden], 'bf16', 0);
  for (let l = 0; l < layers; l++) add(`model.layers.${l}.mlp.gate.weight`, [experts, hidden], 'f32', 0);
  const start = end;
  for (let l = 0; l < layers; l++) {
    let at = start;
    for (const [projection, shape] of [
      ['gate', [experts, intermediate, hidden]],
      ['up', [experts, intermediate, hidden]],
      ['down', [experts, hidden, intermediate]],
    ] as const) {
      at = add(`model.layers.${l}.mlp.experts.${projection}_proj`, shape, format, l + 1, at);
    }
  }
  return tensors;
}

/** Ends the name of a tensor of scales; its format is said to be that of the weights it belongs to. */
const SCALES = '.scales';

/** The weights of `layout`, by path. */
class LayerWeights implements WeightFinder {
  readonly kind = 'huggingface';
  readonly weights: Weight[] = [];
  readonly #tensors: ReadonlyMap<string, TensorInfo>;

  constructor(tensors: readonly TensorInfo[]) {
    this.#tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  }

  has(path: string): boolean {
    return this.#tensors.has(path);
  }

  find(path: string): Weight {
    const known = this.weights.find((weight) => weight.name === path);
    if (known) return known;
    const { shape, format } = this.#tensors.get(path)!;
    const scales = this.has(path + SCALES) ? { scales: [path + SCALES] } : {};
    const found = { name: path, shape, format: format as FormatName, parts: [path], ...scales };
    const weight = { id: this.weights.length, ...found };
    this.weights.push(weight);
    return weight;
  }

  findOptional(path: string): Weight | undefined {
    return this.has(path) ? this.find(path) : undefined;
  }

  findExperts(path: string, projection: Projection): Weight {
    return this.find(`${path}.${projection}_proj`);
  }

  findExpertBias(path: string, projection: Projection): Weight {
    return this.find(`${path}.${projection}_proj_bias`);
  }
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
  const { source, close } = await temporaryWeights('tandem-bench-', stretches(tensors.filter(({ file }) => file <= 1)));
  return {
    ...headers(tensors),
    files: Array.from({ length: layers + 1 }, () => source),
    readTensor: (name, start = 0, end) => {
      const { offset, bytes, shape } = tensors.find((tensor) => tensor.name === name)!;
      const slice = bytes / shape[0];
      return source.read(offset + start * slice, offset + (end ?? shape[0]) * slice);
    },
    close,
  };
}

function* stretches(tensors: readonly TensorInfo[]): Generator<Stretch> {
  for (const tensor of tensors) {
    const weights = tensors.find(({ name }) => name + SCALES === tensor.name);
    const chunks = weights ? randomScales(synthetic(weights)) : randomTensor(synthetic(tensor), 1);
    yield { offset: tensor.offset, chunks };
  }
}

function synthetic({ name, shape, format }: TensorInfo): SyntheticTensor {
  return { name, shape, format: format as FormatName };
}
