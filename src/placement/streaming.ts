/**
 * Long prompts beside a GPU: all experts of a model pass through it once a micro-batch, instead of being computed by the CPU.
 * From how many rows that pays. What is sent does not depend on what routers chose: with so many rows nearly every expert is
 * visited. In which pieces they travel is native/cuda/streaming.h's (decision 017).
 */
import { streamedSeconds } from './physics.ts';

export interface StreamedExperts {
  /** Bytes of one expert of each layer that is streamed. */
  readonly expertBytes: readonly number[];
  readonly experts: number;
  /** Routed weights that one token is multiplied with, all layers. */
  readonly weightsPerToken: number;
}

export interface StreamRates {
  /** Bytes per second from pinned memory to the card. */
  readonly pcie: number;
  /** Operations per second that its expert kernels reach. */
  readonly operations: number;
}

/** Seconds that a micro-batch of so many rows takes of all streamed experts, once the pipeline is full. */
export function microBatchSeconds(
  { expertBytes, experts, weightsPerToken }: StreamedExperts,
  rates: StreamRates,
  rows: number,
): number {
  const bytes = expertBytes.reduce((sum, one) => sum + one * experts, 0);
  return streamedSeconds({ bytes, bandwidth: rates.pcie }, 2 * weightsPerToken * rows, rates.operations);
}

/**
 * Rows from which a pass streams: the fewest, at most `most`, from which on it is faster than `cpuSeconds` says that the CPU
 * computes the same experts; undefined: never. About 32·E/k (`streamingPaysFrom`).
 */
export function streamsFrom(
  model: StreamedExperts,
  rates: StreamRates,
  cpuSeconds: (rows: number) => number,
  most: number,
): number | undefined {
  const pays = (rows: number) => microBatchSeconds(model, rates, rows) < cpuSeconds(rows);
  if (model.expertBytes.length === 0 || !pays(most)) return undefined;
  // Both grow with the rows; the upload has a part that does not, so they cross once.
  let [low, high] = [0, most];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (pays(middle)) high = middle;
    else low = middle;
  }
  return high;
}
