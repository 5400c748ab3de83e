/**
 * Small random Programs that use every op, with their weights: for batch laws, fuzz and comparing backends. What they
 * compute means nothing; their shape is that of a real model.
 */
import type { FormatName } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { encodeScales, SCALE_BYTES } from '../../src/formats/quants/scales.ts';
import { activationOf } from '../../src/ops/activation.ts';
import { OPS } from '../../src/ops/index.ts';
import type { Attribute, KvLayer, KvType, Program, Step } from '../../src/program/program.ts';
import { shapeContext } from '../../src/program/rules.ts';
import type { Operand, Value, Weight } from '../../src/program/tensor.ts';
import { type MemoryTensor, memoryCheckpoint } from './memory-checkpoint.ts';
import { randomBlocks, randomScales } from './random.ts';

export interface TinyOptions {
  readonly seed: number;
  /** Attention and feed-forward of each layer; default one of each. */
  readonly layers?: readonly (readonly ['gqa' | 'mla' | 'mla-split', 'dense' | 'experts'])[];
  /** Format of the matrices; default f32. */
  readonly format?: FormatName;
  readonly kvType?: KvType;
  /** Placement: activations as the format wants them; default f32. */
  readonly fast?: boolean;
  /** Router; default sigmoid with two groups of two. */
  readonly score?: 'softmax' | 'sigmoid';
  /** Per-expert tensors instead of fused ones. */
  readonly split?: boolean;
}

export const TINY_VOCABULARY = 40;
const HEADS = 2;
const EXPERTS = 4;

export function tinyProgram(options: TinyOptions) {
  const { seed, format = 'f32', fast = false, score = 'sigmoid', split = false } = options;
  const layers = options.layers ?? [
    ['gqa', 'dense'],
    ['mla', 'experts'],
  ];
  const { blockSize, scaleBlock } = quantFormat(format);
  const hidden = blockSize === 256 ? 256 : 64;
  const values: Value[] = [];
  const weights: Weight[] = [];
  const steps: Step[] = [];
  const kvLayers: KvLayer[] = [];
  const tensors: MemoryTensor[] = [];
  const draft: Program = {
    name: 'tiny',
    vocabSize: TINY_VOCABULARY,
    contextLength: 4096,
    values,
    weights,
    kv: { pageTokens: 64, type: options.kvType ?? 'f32', layers: kvLayers },
    steps: [],
    logits: 0,
  };
  let layer = -1;

  const weight = (name: string, shape: number[], of: FormatName = format): Operand => {
    const number = weights.length;
    const [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape.slice(-2);
    const matrices = shape.length === 3 ? shape[0] : 1;
    // Every matrix has a seed of its own, so that fused and split tensors hold the same weights.
    const seeds = Array.from({ length: matrices }, (_, m) => seed * 1000 + number * 10 + m);
    const deviation = shape.length === 1 ? 1 : 1 / Math.sqrt(columns);
    const store = (path: string, of: string, size: readonly number[], data: readonly Uint8Array[]): string[] => {
      const names = split && matrices > 1 ? seeds.map((_, m) => `${path}.${m}`) : [path];
      names.forEach((each, m) => {
        const bytes = names.length > 1 ? data[m] : joined(data);
        tensors.push({ name: each, shape: names.length > 1 ? size.slice(1) : size, format: of, bytes });
      });
      return names;
    };
    const raw = seeds.map((at) => randomBlocks(of, rows, columns, at, deviation));
    const parts = store(name, of, shape, raw);
    const scaled = of === format && scaleBlock !== undefined;
    const storeScales = () => {
      const { type } = scaleBlock!;
      const blocks = seeds.map((at) => encodeScales(type, randomScales(format, rows, columns, at, 0.3)));
      const scaleShape = [...(matrices > 1 ? [matrices] : []), blocks[0].length / SCALE_BYTES[type]];
      return store(`${name}_scale_inv`, type, scaleShape, blocks);
    };
    const scales = scaled ? storeScales() : [];
    weights.push({ id: number, name, shape, format: of, parts, ...(scaled ? { scales } : {}) });
    return { kind: 'weight', weight: number };
  };
  const view = (operand: Operand, start: number, columns: number): Operand => ({
    ...(operand as Extract<Operand, { kind: 'value' }>),
    start,
    columns,
  });
  const step = (op: string, path: string, inputs: Operand[], attributes: Record<string, Attribute> = {}): Operand[] => {
    const name = layer < 0 ? path : `layers.${layer}.${path}`;
    const matrix = inputs.find((operand) => operand?.kind === 'weight');
    const rounded = fast && matrix && (op === 'linear' || op === 'experts');
    const activation = rounded ? activationOf(weights[matrix.weight].format) : 'f32';
    const made: Step = { op, name, layer, inputs, outputs: [], attributes, placement: { device: 'cpu', activation } };
    const rules = OPS.get(op)!;
    const outputs = rules.shape(shapeContext(draft, made, rules)).map((shape, i) => {
      const id = values.length;
      values.push({ id, name: i === 0 ? name : `${name}.${i}`, ...shape });
      return id;
    });
    steps.push({ ...made, outputs });
    return outputs.map((value) => ({ kind: 'value', value, start: 0, columns: values[value].columns }));
  };
  const linear = (path: string, x: Operand, columns: number, of?: FormatName): Operand => {
    const { columns: inner } = x as Extract<Operand, { kind: 'value' }>;
    const name = layer < 0 ? path : `layers.${layer}.${path}`;
    return step('linear', path, [x, weight(`${name}.weight`, [columns, inner], of)])[0];
  };
  const norm = (path: string, x: Operand, group: number): Operand =>
    step('rms-norm', path, [x, weight(`${layer}.${path}.weight`, [group], 'f32')], { epsilon: 1e-6, group })[0];
  const rope = (path: string, x: Operand, headSize: number, offset: number, width: number, style: string): Operand => {
    const frequencies = Array.from({ length: width / 2 }, (_, i) => 100 ** ((-2 * i) / width));
    return step('rope', path, [x], { headSize, offset, width, style, frequencies, magnitude: 1 })[0];
  };

  const attend = (kind: 'gqa' | 'mla' | 'mla-split', x: Operand): Operand => {
    const cache = kvLayers.length;
    if (kind === 'gqa') {
      const size = 16;
      const q = rope('q_rope', norm('q_norm', linear('q', x, HEADS * size), size), size, 0, size, 'halves');
      const kv = linear('kv', x, 2 * size);
      const k = rope('k_rope', view(kv, 0, size), size, 0, size, 'halves');
      kvLayers.push({ streams: [size, size].map((width) => ({ heads: 1, width })) });
      step('kv-append', 'append', [k, view(kv, size, size)], { cache });
      const shape = { heads: HEADS, kvHeads: 1, headSize: size, valueSize: size, scale: 0.25 };
      return step('attention', 'attention', [q], { cache, ...shape })[0];
    }
    const [nope, width, value, latent] = [blockSize === 1 ? 16 : 32, 8, 32, blockSize === 256 ? 256 : 32];
    const q = rope('q_rope', linear('q', x, HEADS * (nope + width)), nope + width, nope, width, 'pairs');
    const kvA = linear('kv_a', x, latent + width);
    const key = rope('k_rope', view(kvA, latent, width), width, 0, width, 'pairs');
    kvLayers.push({ streams: [{ heads: 1, width: latent + width }] });
    step('mla-append', 'append', [norm('kv_a_norm', view(kvA, 0, latent), latent), key], { cache });
    const shape = { heads: HEADS, nope, rope: width, latent, value, scale: 0.2 };
    const name = `layers.${layer}.kv_b`;
    // kB's rows are `nope` wide, which K-blocks do not divide: real files keep such tensors in another format too.
    const keyFormat = blockSize === 256 ? 'q8_0' : format;
    const up =
      kind === 'mla'
        ? [weight(name, [HEADS * (nope + value), latent]), null, null]
        : [null, weight(`${name}.k`, [HEADS, latent, nope], keyFormat), weight(`${name}.v`, [HEADS, value, latent])];
    return step('mla', 'mla', [q, ...up], { cache, ...shape })[0];
  };

  const feed = (kind: 'dense' | 'experts', x: Operand): Operand => {
    if (kind === 'dense') {
      const gate = linear('gate', x, hidden);
      const up = linear('up', x, hidden);
      return linear('down', step('glu', 'glu', [gate, up], { activation: 'silu' })[0], hidden);
    }
    const routing = { topk: 2, score, groups: 2, groupTopk: 1, groupScore: 'top2', normalize: true, scale: 1.5 };
    const bias = score === 'sigmoid' ? weight(`layers.${layer}.bias`, [EXPERTS], 'f32') : null;
    const [ids, shares] = step('router', 'router', [linear('router_in', x, EXPERTS, 'f32'), bias], routing);
    const [gate, up, down] = ['gate', 'up', 'down'].map((name) =>
      weight(`layers.${layer}.experts.${name}`, [EXPERTS, hidden, hidden]),
    );
    return step('experts', 'experts', [x, ids, shares, gate, up, down], { activation: 'silu' })[0];
  };

  let x = step('embed', 'embed', [weight('embed.weight', [TINY_VOCABULARY, hidden])])[0];
  layers.forEach(([attention, ffn], index) => {
    layer = index;
    const mixed = linear('o', attend(attention, norm('norm_1', x, hidden)), hidden, blockSize === 256 ? 'f32' : format);
    x = step('add', 'add_1', [x, mixed])[0];
    x = step('add', 'add_2', [x, feed(ffn, norm('norm_2', x, hidden))])[0];
  });
  layer = -1;
  const logits = linear('head', norm('norm', step('gather-rows', 'gather', [x])[0], hidden), TINY_VOCABULARY);
  step('sample', 'sample', [logits]);
  const { value } = logits as Extract<Operand, { kind: 'value' }>;
  return { program: { ...draft, steps, logits: value }, checkpoint: memoryCheckpoint(tensors) };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
