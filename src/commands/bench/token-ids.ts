/** The prompt of a measurement: token ids that differ, the same for every engine. Text would be tokenized differently. */

/** `count` ids in [3, 3 + modulus): the first few of a vocabulary may be control tokens. bench/peers computes the same. */
export function tokenIds(count: number, modulus: number): number[] {
  return Array.from({ length: count }, (_, i) => ((i * 37 + 11) % modulus) + 3);
}

/** For a vocabulary of this size. */
export function modulusFor(vocabSize: number): number {
  return Math.max(1, Math.min(1000, vocabSize - 3));
}
