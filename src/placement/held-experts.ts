/** Experts that GPUs hold beside the processor's (decision 016): how many, and what share of the choices that is expected to be. */
import type { SharingPlan } from '../backend/backend.ts';
import type { SharedLayer } from './expert-sharing.ts';
import { heldHits } from './physics.ts';

export interface HeldExperts {
  /** Layers that hold some, and how many each, the fewest and the most. */
  readonly layers: number;
  readonly slots: readonly [fewest: number, most: number];
  /** Of a layer. */
  readonly experts: number;
  readonly bytes: number;
  /** Share of the choices of these layers that is expected to be among them. */
  readonly hits: { readonly low: number; readonly expected: number; readonly high: number };
}

export function heldOf(layers: readonly SharedLayer[], { slots, bytes }: NonNullable<SharingPlan['hot']>): HeldExperts {
  const held = layers.filter(({ layer }) => slots[layer] > 0);
  const counts = held.map(({ layer }) => slots[layer]);
  const hits = [...hitsByLayer(layers, slots).values()];
  const mean = (of: 'low' | 'expected' | 'high') => hits.reduce((sum, each) => sum + each[of], 0) / hits.length;
  return {
    layers: held.length,
    slots: [Math.min(...counts), Math.max(...counts)],
    experts: Math.max(...held.map(({ experts }) => experts)),
    bytes,
    hits: { low: mean('low'), expected: mean('expected'), high: mean('high') },
  };
}

/** Of the layers that hold some. */
export function hitsByLayer(
  layers: readonly SharedLayer[],
  slots: Int32Array,
): ReadonlyMap<number, HeldExperts['hits']> {
  const held = layers.filter(({ layer }) => slots[layer] > 0);
  return new Map(held.map(({ layer, experts }) => [layer, heldHits(slots[layer] / experts)]));
}

/** `26 of 256 experts of each of 58 layers`. */
export function describeHeld({ layers, slots: [fewest, most], experts }: HeldExperts): string {
  const count = fewest === most ? `${fewest}` : `${fewest} to ${most}`;
  return `${count} of ${experts} experts of ${layers === 1 ? 'a layer' : `each of ${layers} layers`}`;
}

/** `about 28 % of the choices (10 where routing has no pattern, 46 where it is as large models route)`. */
export function describeHits({ hits }: HeldExperts): string {
  const percent = (share: number) => `${Math.round(share * 100)}`;
  return `about ${percent(hits.expected)} % of the choices (${percent(hits.low)} where routing has no pattern, ${percent(hits.high)} where it is drawn as large models route)`;
}
