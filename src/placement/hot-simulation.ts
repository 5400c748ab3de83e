/**
 * What a way of holding experts would have caught of a routing that was recorded: hits, uploads and the time of the experts
 * that follows from them. For choosing a policy, and for judging one on the routing of another model (bench/hot-experts.mjs).
 */
import { HotExperts, type HotRates, hitsToPayBack } from './hot-experts.ts';

/** Ids that a sequence's tokens chose: [tokens, layers, chosen]. */
export interface RoutingTrace {
  readonly experts: number;
  readonly layers: number;
  readonly chosen: number;
  readonly ids: Uint8Array | Uint16Array;
}

/** A way of holding experts. Tokens come one by one; `look` is asked for each choice of a token before `after`. */
export interface Residency {
  look(layer: number, expert: number): boolean;
  /** The token is done: what changes for the next one. `room`: uploads that the link has time for. Uploads made. */
  after(ids: RoutingTrace['ids'], room: number): number;
}

export interface Caught {
  /** Share of the choices. */
  readonly hits: number;
  readonly uploadsPerToken: number;
  /** Time of a token's experts, of that without any held ones: misses and uploads take the memory's time, hits the GPU's. */
  readonly time: number;
}

/**
 * Layer by layer hits and misses run beside each other and uploads beside everything, on the memory's time; `waits`: they
 * bring what is missed just now, and it waits for them at `pcie`.
 */
export function simulate(
  trace: RoutingTrace,
  residency: Residency,
  rates: HotRates & { readonly pcie: number },
  { room = Infinity, waits = false }: { readonly room?: number; readonly waits?: boolean } = {},
): Caught {
  const { layers, chosen, ids } = trace;
  const width = layers * chosen;
  const tokens = ids.length / width;
  let [hits, uploads, time] = [0, 0, 0];
  for (let token = 0; token < tokens; token++) {
    const row = ids.subarray(token * width, (token + 1) * width);
    for (let layer = 0; layer < layers; layer++) {
      let held = 0;
      for (let j = 0; j < chosen; j++) if (residency.look(layer, row[layer * chosen + j])) held++;
      hits += held;
      time += waits
        ? (chosen - held) / rates.pcie + chosen / rates.gpu
        : Math.max((chosen - held) / rates.cpu, held / rates.gpu);
    }
    const made = residency.after(row, room);
    uploads += made;
    if (!waits) time += made / rates.dram;
  }
  return {
    hits: hits / (tokens * width),
    uploadsPerToken: uploads / tokens,
    time: time / ((tokens * width) / rates.cpu),
  };
}

type Shape = Pick<RoutingTrace, 'experts' | 'layers' | 'chosen'>;

/** `HotExperts` over a trace. */
export function followed(
  shape: Shape,
  slots: number,
  rates: HotRates,
  halfLife?: number,
  hysteresis?: number,
): Residency {
  const { experts, layers, chosen } = shape;
  const payBack = hitsToPayBack(rates);
  const hot = new HotExperts({ experts, slots: Array(layers).fill(slots), payBack, halfLife, hysteresis });
  const counts = new Uint32Array(layers * experts);
  return {
    look: (layer, expert) => hot.table(layer)[expert] >= 0,
    after(ids, room) {
      ids.forEach((expert, i) => {
        counts[Math.floor(i / chosen) * experts + expert]++;
      });
      hot.observe({ counts });
      let made = 0;
      for (let upload = made < room ? hot.next() : undefined; upload; upload = made < room ? hot.next() : undefined) {
        hot.done(upload);
        made++;
      }
      return made;
    },
  };
}

/** The experts that another trace chose most, for good. */
export function pinned(before: RoutingTrace, slots: number): Residency {
  const { experts, layers, chosen, ids } = before;
  const counts = new Uint32Array(layers * experts);
  ids.forEach((expert, i) => {
    counts[(Math.floor(i / chosen) % layers) * experts + expert]++;
  });
  const held = Array.from({ length: layers }, (_, layer) => {
    const own = [...counts.subarray(layer * experts, (layer + 1) * experts)];
    const order = own.map((_count, expert) => expert).sort((a, b) => own[b] - own[a] || a - b);
    return new Set(order.slice(0, slots));
  });
  return { look: (layer, expert) => held[layer].has(expert), after: () => 0 };
}

/** What was chosen last, every miss uploaded. */
export function lastUsed({ layers, chosen }: Shape, slots: number): Residency {
  const held = Array.from({ length: layers }, () => new Set<number>());
  return {
    look: (layer, expert) => held[layer].has(expert),
    after(ids) {
      let made = 0;
      ids.forEach((expert, i) => {
        const own = held[Math.floor(i / chosen)];
        if (!own.delete(expert)) made++;
        own.add(expert);
        if (own.size > slots) own.delete(own.values().next().value!);
      });
      return made;
    },
  };
}

/**
 * Routing as large models show it: some experts are asked for more than others, which ones changes with the subject, and a
 * token often takes what the one before took. No model's own; `skew` and `stay` say how much of each.
 */
export function drawRouting(
  shape: Shape & {
    readonly tokens: number;
    /** Tokens after which the subject changes. */
    readonly subject: number;
    /** Spread of the logarithm of how often an expert is asked for: within a subject, and always. */
    readonly skew: number;
    readonly always: number;
    /** Probability that a choice of the token before is taken again. */
    readonly stay: number;
  },
  random: () => number,
): RoutingTrace {
  const { experts, layers, chosen, tokens, subject, skew, always, stay } = shape;
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const ids = new Uint16Array(tokens * layers * chosen);
  for (let layer = 0; layer < layers; layer++) {
    const base = Float64Array.from({ length: experts }, () => always * normal());
    let odds = new Float64Array();
    let before: number[] = [];
    for (let token = 0; token < tokens; token++) {
      if (token % subject === 0) odds = base.map((logarithm) => Math.exp(logarithm + skew * normal()));
      const taken = new Set(before.filter(() => random() < stay));
      const sum = odds.reduce((all, odd) => all + odd, 0);
      while (taken.size < chosen) {
        let at = random() * sum;
        let expert = 0;
        while (expert < experts - 1 && at >= odds[expert]) at -= odds[expert++];
        taken.add(expert);
      }
      before = [...taken];
      ids.set(before, (token * layers + layer) * chosen);
    }
  }
  return { experts, layers, chosen, ids };
}
