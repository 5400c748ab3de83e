/**
 * The random number of a draw: a pure function of (seed, position), so that a preempted or re-batched sequence draws
 * the same. Two rounds of the murmur3 finalizer over 32-bit words; native has the same (native/cpu/uniform.h).
 */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Uniform in [0, 1), 53 bits. All arguments are taken as unsigned 32-bit. */
export function uniform(seedLow: number, seedHigh: number, position: number): number {
  const a = mix((seedLow >>> 0) ^ mix((position + 0x9e3779b9) >>> 0));
  const b = mix((seedHigh >>> 0) ^ mix((a + 0x7f4a7c15) >>> 0));
  const c = mix((a + Math.imul(b, 0x9e3779b1)) >>> 0);
  return ((c >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}
