/**
 * From how many rows of a pass streaming experts through a GPU beats the processor, by what is known of both (decision 017): a
 * server whose processor multiplies fast would lose by it at row counts where a small machine gains.
 */
import type { Program } from '../program/program.ts';
import { matrixSeconds } from './costs.ts';
import type { SharedLayer } from './expert-sharing.ts';
import { type MachineProfile, usedGpus } from './profile.ts';
import { type MatrixWork, matricesOfStep, weightsPerToken } from './sizes.ts';
import { GPU } from './step-seconds.ts';
import { streamsFrom } from './streaming.ts';

/** Infinity: not within `most` rows; undefined: nothing is known of a card. */
export function streamingFrom(
  placed: Program,
  layers: readonly SharedLayer[],
  profile: MachineProfile,
  most: number,
): number | undefined {
  const gpus = new Map(usedGpus(profile).map((gpu) => [gpu.device, gpu]));
  let from = 0;
  for (const device of new Set(layers.map((layer) => layer.device))) {
    const gpu = gpus.get(device);
    if (gpu === undefined) return undefined;
    const own = layers.filter((layer) => layer.device === device);
    const work = worksOf(placed, own);
    const model = {
      expertBytes: own.map(({ expertBytes }) => expertBytes),
      experts: Math.max(...own.map(({ experts }) => experts)),
      weightsPerToken: sum(work, weightsPerToken),
    };
    const rates = { pcie: gpu.pcie, operations: gpu.bf16 * GPU.bf16 };
    const cpuSeconds = (rows: number) => sum(work, (each) => matrixSeconds(each, rows, profile));
    from = Math.max(from, streamsFrom(model, rates, cpuSeconds, most) ?? Infinity);
  }
  return from;
}

/** The experts of those layers. */
export function worksOf(placed: Program, layers: readonly SharedLayer[]): MatrixWork[] {
  const numbers = new Set(layers.map(({ layer }) => layer));
  return placed.steps.flatMap((step) =>
    step.op === 'experts' && numbers.has(step.layer) ? matricesOfStep(placed, step) : [],
  );
}

function sum<T>(items: readonly T[], measure: (item: T) => number): number {
  return items.reduce((all, item) => all + measure(item), 0);
}
