/**
 * The Program: a flat, typed list of steps, traced once from a model and run once per pass. It is the only thing that
 * crosses from TypeScript to native. It holds no data and no machine facts; a *placed* Program carries a `placement`
 * on every step.
 */
import type { Operand, Value, Weight } from './tensor.ts';

export type Attribute = number | boolean | string | readonly number[];

/**
 * How activations are rounded before they meet weights: `f32` not at all; `q8_32` / `q8_256` int8 codes with one f32
 * scale per 32 / 256 values; `bf16` round to nearest even.
 */
export type ActivationFormat = 'f32' | 'q8_32' | 'q8_256' | 'bf16';

/** How a step computes in one kind of pass. */
export interface StepExecution {
  /** Rounding of the activations that meet this step's weights (`experts`: of x; the intermediate follows `middle`). */
  readonly activation: ActivationFormat;
  /** `experts` only: rounding of the intermediate before the down product. */
  readonly middle?: ActivationFormat;
  /**
   * Fast mode. Where one matrix meets at least so many rows in a pass, both operands are rounded to bf16 for the
   * machine's tiles, instead of x to `activation` and the intermediate to `middle`. `linear`: rows of x; `experts`: the
   * rows that visit that expert; `attention`, `mla`: query rows of one sequence. Whole, above 0; absent: never.
   */
  readonly tiles?: number;
  /** Who computes it: `reference`, or a kernel registered by that name; absent: the backend's own. */
  readonly kernel?: string;
  /** Why, for people: the rule that decided, or what else did. Stays on this side of native. */
  readonly origin?: string;
}

/** Where and how a step runs. Written by `lower`, read by backends. */
export interface StepPlacement extends StepExecution {
  /** `cpu`, `cuda:0` … */
  readonly device: string;
  /** Instead of the above where every sequence of the pass has one row; absent: the same. */
  readonly decode?: StepExecution;
}

/** `decode`: passes in which every sequence has one row; `prefill`: all others. */
export type Phase = 'prefill' | 'decode';

export const PHASES: readonly Phase[] = ['prefill', 'decode'];

/** How a step computes in passes of that kind; undefined where it is not placed. */
export function executionOf({ placement }: Step, phase: Phase): StepExecution | undefined {
  return (phase === 'decode' && placement?.decode) || placement;
}

/** One instruction. Operand order and attributes are the op's (docs/reference/ops.md). */
export interface Step {
  readonly op: string;
  /** Module path in the checkpoint's words, e.g. `model.layers.3.mlp.experts`; unique in the Program. */
  readonly name: string;
  /** Decoder layer, or -1 outside the layers. */
  readonly layer: number;
  readonly inputs: readonly Operand[];
  /** Ids of the values this step writes. */
  readonly outputs: readonly number[];
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly placement?: StepPlacement;
}

/** How an element of the cache is stored; `e4m3` (no scales, at most ±448) on GPUs alone. */
export type KvType = 'f32' | 'bf16' | 'e4m3';

export const KV_TYPES: readonly KvType[] = ['f32', 'bf16', 'e4m3'];

/** Bytes of an element of the cache. */
export const KV_BYTES: Readonly<Record<KvType, number>> = { f32: 4, bf16: 2, e4m3: 1 };

/** One stream of a layer's cache; in a page it is stored as [heads][pageTokens][width]. */
export interface KvStream {
  readonly heads: number;
  readonly width: number;
}
/** What one layer caches per token. Grouped-query: [k, v]. MLA: one stream with heads 1, width latent + rope. */
export interface KvLayer {
  readonly streams: readonly KvStream[];
}
/** A page holds `pageTokens` tokens of all layers, contiguous: layer by layer, stream by stream. */
export interface KvLayout {
  readonly pageTokens: number;
  readonly type: KvType;
  readonly layers: readonly KvLayer[];
}

/** Tokens in a KV page. */
export const PAGE_TOKENS = 64;

export interface Program {
  /** Architecture, e.g. `deepseek-v3`. */
  readonly name: string;
  readonly vocabSize: number;
  /** Longest position the model was made for. */
  readonly contextLength: number;
  readonly values: readonly Value[];
  readonly weights: readonly Weight[];
  readonly kv: KvLayout;
  readonly steps: readonly Step[];
  /** The value [O, V] that holds the logits. */
  readonly logits: number;
}

/** Elements that one token takes in the cache, all layers. */
export function kvElementsPerToken(layout: KvLayout): number {
  let total = 0;
  for (const layer of layout.layers) for (const stream of layer.streams) total += stream.heads * stream.width;
  return total;
}

/** Bytes of one page. */
export function pageBytes(layout: KvLayout): number {
  return kvElementsPerToken(layout) * layout.pageTokens * KV_BYTES[layout.type];
}
