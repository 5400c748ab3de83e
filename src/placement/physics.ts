/**
 * The arithmetic of a model in memory, one formula a function, over bytes and bytes per second; seconds come out. Letters
 * as in the field: R routed bytes that a token reads, S all else that it reads, A all routed bytes, E experts, k chosen,
 * h hit rate, n tokens. Efficiency is in the bandwidths that are passed in. Predictions go step by step (`predict.ts`);
 * these are the ceilings of whole models, published speeds are held against them, and predictions too, by tests.
 */

/** Bytes, and bytes per second of the memory that they lie in. */
export interface Traffic {
  readonly bytes: number;
  readonly bandwidth: number;
}

/** bytes / bandwidth. */
export function seconds({ bytes, bandwidth }: Traffic): number {
  return bytes === 0 ? 0 : bytes / bandwidth;
}

/** Experts that n tokens touch when each chooses k of E: E·(1 − (1 − k/E)ⁿ). */
export function distinctExperts(experts: number, chosen: number, tokens: number): number {
  return experts === 0 ? 0 : experts * (1 - (1 - chosen / experts) ** tokens);
}

/** Times R that n tokens at once (a batch, or drafted tokens to verify) read: E·(1 − (1 − k/E)ⁿ) / k. */
export function distinctFactor(experts: number, chosen: number, tokens: number): number {
  return experts === 0 ? 1 : distinctExperts(experts, chosen, tokens) / chosen;
}

/** Experts wait for attention, so their times add up: t = R/B_routed + S/B_dense + ctx·KV/B_cache. One device, or two. */
export function decodeSerial(parts: {
  readonly routed: Traffic;
  readonly dense: Traffic;
  readonly cache: Traffic;
}): number {
  return seconds(parts.routed) + seconds(parts.dense) + seconds(parts.cache);
}

/**
 * Shared experts on the GPU while the CPU computes the routed ones:
 * t = max(R/B_dram, S_shared/B_gpu) + (S − S_shared)/B_gpu + ctx·KV/B_cache.
 */
export function decodeSharedBeside(parts: {
  readonly routed: Traffic;
  readonly shared: Traffic;
  /** S − S_shared. */
  readonly rest: Traffic;
  readonly cache: Traffic;
}): number {
  return Math.max(seconds(parts.routed), seconds(parts.shared)) + seconds(parts.rest) + seconds(parts.cache);
}

interface ExpertCache {
  /** Share of the chosen experts that the GPU holds, [0, 1]. */
  readonly hit: number;
  readonly routedBytes: number;
  readonly denseBytes: number;
  readonly gpu: number;
}

/** Experts cached on the GPU, misses computed by the CPU: t = R(1−h)/B_dram + (S + R·h)/B_gpu; the larger of both where they overlap. */
export function decodeExpertCacheComputed(
  { hit, routedBytes, denseBytes, gpu, dram }: ExpertCache & { readonly dram: number },
  overlap = false,
): number {
  const cpu = (routedBytes * (1 - hit)) / dram;
  if (overlap) return Math.max(cpu, (routedBytes * hit) / gpu) + denseBytes / gpu;
  return cpu + (denseBytes + routedBytes * hit) / gpu;
}

/** The same, misses uploaded: t = R(1−h)/B_pcie + (S + R)/B_gpu. An upload reads DRAM too. */
export function decodeExpertCacheUploaded({
  hit,
  routedBytes,
  denseBytes,
  gpu,
  pcie,
}: ExpertCache & { readonly pcie: number }): number {
  return (routedBytes * (1 - hit)) / pcie + (denseBytes + routedBytes) / gpu;
}

/**
 * Share of a token's choices that are held where so many of a layer's experts are, those asked for most: h = s where routing has no
 * pattern; s^(1/3) where it is drawn as large models route (decision 016: 46 % of 10, 51 % of 13); the middle is expected.
 */
export function heldHits(share: number): { readonly low: number; readonly expected: number; readonly high: number } {
  const high = Math.cbrt(share);
  return { low: share, expected: (share + high) / 2, high };
}

/** Hit rate from which uploading misses beats computing them: 1 − B_pcie/B_dram, 0 where the bus is the faster one. */
export function uploadBreakEven(pcie: number, dram: number): number {
  return Math.max(0, 1 - pcie / dram);
}

/** Experts on a disk, the share h of the chosen ones in DRAM: t = R(1−h)/B_ssd + R·h/B_dram + S/B_dense. */
export function decodeFromDisk(parts: {
  readonly hit: number;
  readonly routedBytes: number;
  readonly ssd: number;
  readonly dram: number;
  readonly dense: Traffic;
}): number {
  const { hit, routedBytes, ssd, dram, dense } = parts;
  return (routedBytes * (1 - hit)) / ssd + (routedBytes * hit) / dram + seconds(dense);
}

/** A prompt on one unit: t = max(bytes of the distinct weights / B, operations / FLOPS). */
export function prefillOn(weights: Traffic, operations: number, operationsPerSecond: number): number {
  return Math.max(seconds(weights), operations / operationsPerSecond);
}

/** Tokens per second when every expert goes through the GPU once a micro-batch: n·B_pcie/A. */
export function prefillStreamed(microBatch: number, pcie: number, allRouted: number): number {
  return (microBatch * pcie) / allRouted;
}

/** Seconds of a micro-batch of streamed experts: uploads and arithmetic beside each other, max(A/B_pcie, operations/FLOPS). */
export function streamedSeconds(upload: Traffic, operations: number, operationsPerSecond: number): number {
  return Math.max(seconds(upload), operations / operationsPerSecond);
}

/** Tokens of a micro-batch from which streaming pays, about: 32·E/k. */
export function streamingPaysFrom(experts: number, chosen: number): number {
  return (32 * experts) / chosen;
}
