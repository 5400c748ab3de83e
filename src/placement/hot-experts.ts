/**
 * Which routed experts a GPU holds beside the processor's: a choice that follows what is asked for, one decode pass after
 * another. Misses are computed by the CPU and never wait for an upload; uploads happen in the background, where the link is
 * idle and the expert is expected to pay it back. Pure: it counts and chooses, and moves no bytes (decision 016).
 *
 * An expert's score is how often passes touched it, halved every `halfLife` passes: about the hits that it would have brought
 * in the time that it remembers, and, if the near future is like the near past, those that it will bring.
 */
import type { ExpertVisits } from '../backend/backend.ts';

/** Bytes per second, measured: of experts that the CPU computes, of its memory, of the GPU's. */
export interface HotRates {
  readonly cpu: number;
  readonly dram: number;
  readonly gpu: number;
}

/**
 * Hits that an upload over an idle link must bring. It costs the memory's time for one expert, which the CPU lacks; a hit saves
 * what the CPU takes more than the GPU: (1/B_dram) / (1/B_cpu − 1/B_gpu). Infinity where the GPU is no faster.
 */
export function hitsToPayBack({ cpu, dram, gpu }: HotRates): number {
  return gpu <= cpu ? Infinity : 1 / dram / (1 / cpu - 1 / gpu);
}

export interface HotBudget {
  /** Experts that each layer may hold. */
  readonly slots: readonly number[];
  /** Bytes of those. */
  readonly bytes: number;
}

/**
 * Slots by layer for what a card has left: as many for each layer, what remains to the first ones; none where not one layer
 * would have any. `free`: bytes beside weights, cache and buffers; `total`: of the card, of which a part stays free.
 * `expertBytes`: of one expert of each layer, 0 for layers whose experts lie on the card anyway.
 */
export function hotBudget(
  card: { free: number; total: number },
  expertBytes: readonly number[],
  experts: number,
): HotBudget {
  let left = card.free - headroomOf(card.total);
  const all = expertBytes.reduce((sum, bytes) => sum + bytes, 0);
  const even = all === 0 ? 0 : Math.min(experts, Math.max(0, Math.floor(left / all)));
  left -= even * all;
  const slots = expertBytes.map((bytes) => {
    if (bytes === 0) return 0;
    if (even === experts || bytes > left) return even;
    left -= bytes;
    return even + 1;
  });
  const held = slots.reduce((sum, count, layer) => sum + count * expertBytes[layer], 0);
  return { slots, bytes: held };
}

/** Of a card with so much memory, kept free of experts: caches and graphs of drivers grow. */
export function headroomOf(total: number): number {
  return Math.max(HEADROOM.bytes, total * HEADROOM.share);
}

const HEADROOM = { share: 0.05, bytes: 0.5e9 };

export interface HotOptions {
  readonly experts: number;
  /** Of each layer with experts, in the order of ExpertVisits. */
  readonly slots: readonly number[];
  /** `hitsToPayBack` of the machine. */
  readonly payBack: number;
  /** Decode passes in which a score halves. */
  readonly halfLife?: number;
  /** Times `payBack` that a newcomer is ahead of whom it replaces: experts that are equal do not take turns. */
  readonly hysteresis?: number;
}

/** An expert on its way to a GPU. */
export interface Upload {
  /** Row of ExpertVisits. */
  readonly layer: number;
  readonly expert: number;
  /** Of the layer; where its bytes go. */
  readonly slot: number;
  /** Whose place it takes, −1: nobody's. */
  readonly evicts: number;
}

export class HotExperts {
  readonly #experts: number;
  readonly #slots: readonly number[];
  readonly #needed: number;
  readonly #halfLife: number;
  /** [layers, experts]. */
  readonly #scores: Float64Array;
  readonly #seen: Uint32Array;
  /** Slot of each expert, −1: it is computed by the CPU. */
  readonly #table: Int16Array;
  /** Of each layer: slots that hold nothing. */
  readonly #free: number[][];
  /** Layers with an upload on its way. */
  readonly #loading = new Set<number>();

  constructor({ experts, slots, payBack, halfLife = 64, hysteresis = 2 }: HotOptions) {
    this.#experts = experts;
    this.#slots = slots;
    this.#needed = payBack * hysteresis;
    this.#halfLife = halfLife;
    this.#scores = new Float64Array(slots.length * experts);
    this.#seen = new Uint32Array(slots.length * experts);
    this.#table = new Int16Array(slots.length * experts).fill(-1);
    this.#free = slots.map((count) => Array.from({ length: count }, (_, slot) => slot));
  }

  /** Slot of each expert of a layer, −1 where none: what the next pass reads. */
  table(layer: number): Int16Array {
    return this.#table.subarray(layer * this.#experts, (layer + 1) * this.#experts);
  }

  /** After decode passes: counts since load. However many rows of a pass visit an expert, its weights are read once. */
  observe({ counts }: Pick<ExpertVisits, 'counts'>, passes = 1): void {
    const decay = 2 ** (-passes / this.#halfLife);
    for (let i = 0; i < counts.length; i++) {
      const visits = (counts[i] - this.#seen[i]) >>> 0; // they wrap
      this.#scores[i] = this.#scores[i] * decay + Math.min(visits, passes);
      this.#seen[i] = counts[i];
    }
  }

  /** After passes that read prompts: they touch nearly all experts and say nothing about the next token. */
  ignore({ counts }: Pick<ExpertVisits, 'counts'>): void {
    this.#seen.set(counts);
  }

  /**
   * The upload that brings most, where one pays; undefined: none does. To be asked while the link is idle and no pass runs:
   * whom it evicts is not held from now on, a miss like others until the newcomer is there.
   */
  next(): Upload | undefined {
    let best:
      | { readonly layer: number; readonly expert: number; readonly evicts: number; readonly gain: number }
      | undefined;
    for (let layer = 0; layer < this.#slots.length; layer++) {
      if (this.#slots[layer] === 0 || this.#loading.has(layer)) continue;
      const { coldest, hottest } = this.#ends(layer);
      if (hottest < 0) continue;
      const evicts = this.#free[layer].length > 0 ? -1 : coldest;
      const gain = this.#score(layer, hottest) - (evicts < 0 ? 0 : this.#score(layer, evicts));
      if (gain >= this.#needed && gain > (best?.gain ?? 0)) best = { layer, expert: hottest, evicts, gain };
    }
    if (!best) return undefined;
    const { layer, expert, evicts } = best;
    const table = this.table(layer);
    if (evicts >= 0) {
      this.#free[layer].push(table[evicts]);
      table[evicts] = -1;
    }
    this.#loading.add(layer);
    return { layer, expert, slot: this.#free[layer][0], evicts };
  }

  /** Its bytes are there, and no pass is in flight: the next one finds it. */
  done({ layer, expert }: Upload): void {
    this.#loading.delete(layer);
    this.table(layer)[expert] = this.#free[layer].shift()!;
  }

  /** It did not arrive: its slot is free. */
  failed({ layer }: Upload): void {
    this.#loading.delete(layer);
  }

  #score(layer: number, expert: number): number {
    return this.#scores[layer * this.#experts + expert];
  }

  /** The coldest that is held and the hottest that is not; −1: there is none. */
  #ends(layer: number): { coldest: number; hottest: number } {
    const table = this.table(layer);
    let [coldest, hottest] = [-1, -1];
    for (let expert = 0; expert < this.#experts; expert++) {
      const score = this.#score(layer, expert);
      if (table[expert] >= 0) {
        if (coldest < 0 || score < this.#score(layer, coldest)) coldest = expert;
      } else if (hottest < 0 || score > this.#score(layer, hottest)) hottest = expert;
    }
    return { coldest, hottest };
  }
}
