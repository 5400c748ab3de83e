/**
 * Builds a Program step by step. A graph knows shapes and names, no machine and no data: the result is unplaced.
 *
 * Paths are relative to the graph's scope: in `graph.layer(3)`, `self_attn.q_proj` is `model.layers.3.self_attn.q_proj`,
 * both as the step's name and, with `.weight`, as the weight's.
 */
import { TandemError } from '../errors.ts';
import type { Routing } from '../ops/routing.ts';
import { type Attribute, type KvLayer, type KvType, PAGE_TOKENS, type Program, type Step } from '../program/program.ts';
import type { Operand, Rows, Value, Weight } from '../program/tensor.ts';
import type { ExpertHabits, WeightFinder } from './weights.ts';

/** A value, or a range of its columns. */
export interface Tensor {
  readonly value: number;
  readonly start: number;
  readonly columns: number;
  readonly rows: Rows;
}

/** Columns [start, start + columns) of every row. */
export function view(x: Tensor, start: number, columns: number): Tensor {
  return { ...x, start: x.start + start, columns };
}

export interface RopeSpec {
  readonly headSize: number;
  /** Rotated columns [offset, offset + width) of each head. */
  readonly offset: number;
  readonly width: number;
  readonly style: 'pairs' | 'halves';
  readonly frequencies: readonly number[];
  readonly magnitude: number;
}

export interface AttentionSpec {
  readonly cache: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly valueSize: number;
  readonly scale: number;
  /** How many positions a row sees, its own the last; absent: all. */
  readonly window?: number;
}

/** What routed experts may have beside their three matrices. */
export interface ExpertsSpec {
  readonly activation?: 'silu' | 'swiglu-clamped';
  /** Of `swiglu-clamped`. */
  readonly alpha?: number;
  readonly limit?: number;
  /** Each product has a bias. */
  readonly bias?: boolean;
  /** How Hugging Face's files keep them. */
  readonly stored?: ExpertHabits;
}

export interface MlaSpec {
  readonly cache: number;
  readonly heads: number;
  readonly nope: number;
  readonly rope: number;
  readonly latent: number;
  readonly value: number;
  readonly scale: number;
}

interface State {
  readonly values: Value[];
  readonly steps: Step[];
  readonly names: Set<string>;
  readonly caches: KvLayer[];
}

interface Output {
  readonly rows: Rows;
  readonly columns: number;
  readonly type?: 'f32' | 'i32';
  readonly suffix?: string;
}

export class Graph {
  readonly weights: WeightFinder;
  readonly #state: State;
  readonly #prefix: string;
  readonly #layer: number;

  constructor(weights: WeightFinder, parent?: Graph, prefix = '', layer = -1) {
    this.weights = weights;
    this.#state = parent ? parent.#state : { values: [], steps: [], names: new Set(), caches: [] };
    this.#prefix = prefix;
    this.#layer = layer;
  }

  /** The scope of one decoder layer. */
  layer(index: number): Graph {
    return new Graph(this.weights, this, `model.layers.${index}.`, index);
  }

  /** The whole name of a path in this scope. */
  path(path: string): string {
    return this.#prefix + path;
  }

  /** The weight `path`.weight. */
  weight(path: string, shape: readonly number[]): Weight {
    return this.weights.find(`${this.path(path)}.weight`, shape);
  }

  embed(path: string, vocab: number, columns: number): Tensor {
    return this.#step('embed', path, [this.weight(path, [vocab, columns])], {}, [{ rows: 'T', columns }])[0];
  }

  /**
   * x · Wᵀ. A bias beside the weight is added; `bias: true` demands one. `weight` where it is not the path's own (tied
   * embeddings).
   */
  linear(path: string, x: Tensor, columns: number, options: { weight?: Weight; bias?: boolean } = {}): Tensor {
    const weight = options.weight ?? this.weight(path, [columns, x.columns]);
    const name = `${this.path(path)}.bias`;
    const bias = options.bias ? this.weights.find(name, [columns]) : this.weights.findOptional(name, [columns]);
    return this.#step('linear', path, [x, weight, bias ?? null], {}, [{ rows: x.rows, columns }])[0];
  }

  /** Every `group` adjacent columns are normalized apart; default: the whole row. */
  rmsNorm(path: string, x: Tensor, epsilon: number, group = x.columns): Tensor {
    const weight = this.weight(path, [group]);
    return this.#step('rms-norm', path, [x, weight], { epsilon, group }, [{ rows: x.rows, columns: x.columns }])[0];
  }

  rope(path: string, x: Tensor, spec: RopeSpec): Tensor {
    return this.#step('rope', path, [x], { ...spec }, [{ rows: x.rows, columns: x.columns }])[0];
  }

  /** Appends keys and values [T, kvHeads · size] to a cache of their own; returns its index. */
  kvAppend(path: string, k: Tensor, v: Tensor, heads: number): number {
    const streams = [k, v].map((x) => ({ heads, width: x.columns / heads }));
    const cache = this.#state.caches.push({ streams }) - 1;
    this.#step('kv-append', path, [k, v], { cache }, []);
    return cache;
  }

  mlaAppend(path: string, latent: Tensor, ropeKey: Tensor): number {
    const cache = this.#state.caches.push({ streams: [{ heads: 1, width: latent.columns + ropeKey.columns }] }) - 1;
    this.#step('mla-append', path, [latent, ropeKey], { cache }, []);
    return cache;
  }

  /** `sinks`: one score of each head that has no value. */
  attention(path: string, q: Tensor, spec: AttentionSpec, sinks?: Weight): Tensor {
    const output = { rows: q.rows, columns: spec.heads * spec.valueSize };
    return this.#step('attention', path, sinks ? [q, sinks] : [q], { ...spec }, [output])[0];
  }

  /** `up` is the whole kv_b, or its halves [k_b, v_b]. */
  mla(path: string, q: Tensor, up: readonly [Weight] | readonly [Weight, Weight], spec: MlaSpec): Tensor {
    const operands = up.length === 1 ? [q, up[0], null, null] : [q, null, up[0], up[1]];
    return this.#step('mla', path, operands, { ...spec }, [{ rows: q.rows, columns: spec.heads * spec.value }])[0];
  }

  router(path: string, logits: Tensor, bias: Weight | undefined, spec: Routing): { ids: Tensor; weights: Tensor } {
    const [ids, weights] = this.#step('router', path, [logits, bias ?? null], { ...spec }, [
      { rows: logits.rows, columns: spec.topk, type: 'i32', suffix: '.ids' },
      { rows: logits.rows, columns: spec.topk, suffix: '.weights' },
    ]);
    return { ids, weights };
  }

  /** Routed experts; their weights lie under `path`. */
  experts(
    path: string,
    x: Tensor,
    route: { ids: Tensor; weights: Tensor },
    experts: number,
    ffn: number,
    { bias = false, stored, activation = 'silu', ...constants }: ExpertsSpec = {},
  ): Tensor {
    const find = (projection: 'gate' | 'up' | 'down', rows: number, columns: number) =>
      this.weights.findExperts(this.path(path), projection, [experts, rows, columns], stored);
    const findBias = (projection: 'gate' | 'up' | 'down', rows: number) =>
      this.weights.findExpertBias(this.path(path), projection, [experts, rows]);
    const gate = find('gate', ffn, x.columns);
    const up = find('up', ffn, x.columns);
    const down = find('down', x.columns, ffn);
    const biases = bias ? [findBias('gate', ffn), findBias('up', ffn), findBias('down', x.columns)] : [];
    const operands = [x, route.ids, route.weights, gate, up, down, ...biases];
    const output = { rows: x.rows, columns: x.columns };
    return this.#step('experts', path, operands, { activation, ...constants }, [output])[0];
  }

  glu(path: string, gate: Tensor, up: Tensor): Tensor {
    const output = { rows: gate.rows, columns: gate.columns };
    return this.#step('glu', path, [gate, up], { activation: 'silu' }, [output])[0];
  }

  add(path: string, a: Tensor, b: Tensor): Tensor {
    return this.#step('add', path, [a, b], {}, [{ rows: a.rows, columns: a.columns }])[0];
  }

  /** The rows whose logits are asked for: T becomes O. */
  gatherRows(path: string, x: Tensor): Tensor {
    return this.#step('gather-rows', path, [x], {}, [{ rows: 'O', columns: x.columns }])[0];
  }

  /** Ends the Program: samples from `logits` [O, V]. */
  finish(name: string, logits: Tensor, options: { kvType: KvType; contextLength: number }): Program {
    this.#step('sample', 'sample', [logits], {}, [{ rows: 'O', columns: 1, type: 'i32' }]);
    const { values, steps, caches } = this.#state;
    return {
      name,
      vocabSize: logits.columns,
      contextLength: options.contextLength,
      values,
      weights: this.weights.weights,
      kv: { pageTokens: PAGE_TOKENS, type: options.kvType, layers: caches },
      steps,
      logits: logits.value,
    };
  }

  #step(
    op: string,
    path: string,
    inputs: readonly (Tensor | Weight | null)[],
    attributes: Record<string, Attribute>,
    outputs: readonly Output[],
  ): Tensor[] {
    const { values, steps, names } = this.#state;
    const name = this.path(path);
    if (names.has(name)) {
      throw new TandemError('PROGRAM_INVALID', {
        room: 'models',
        rule: 'step names are unique',
        given: `${op} and another step are both called ${name}`,
      });
    }
    names.add(name);
    const tensors = outputs.map(({ rows, columns, type = 'f32', suffix = '' }) => {
      const value: Value = { id: values.length, name: name + suffix, type, rows, columns };
      values.push(value);
      return { value: value.id, start: 0, columns, rows };
    });
    steps.push({
      op,
      name,
      layer: this.#layer,
      inputs: inputs.map(operandOf),
      outputs: tensors.map((tensor) => tensor.value),
      attributes,
    });
    return tensors;
  }
}

function operandOf(input: Tensor | Weight | null): Operand {
  if (input === null) return null;
  if ('value' in input) return { kind: 'value', value: input.value, start: input.start, columns: input.columns };
  return { kind: 'weight', weight: input.id };
}
