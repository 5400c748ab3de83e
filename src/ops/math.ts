/** Arithmetic of the references: f64 inside, f32 where a value is stored. Plain loops, nothing clever. */

/** Σ a[aStart+i]·b[bStart+i], i < count, accumulated in f64. The same order whatever surrounds the row. */
export function dot(a: Float32Array, aStart: number, b: Float32Array, bStart: number, count: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    s0 += a[aStart + i] * b[bStart + i];
    s1 += a[aStart + i + 1] * b[bStart + i + 1];
    s2 += a[aStart + i + 2] * b[bStart + i + 2];
    s3 += a[aStart + i + 3] * b[bStart + i + 3];
  }
  for (; i < count; i++) s0 += a[aStart + i] * b[bStart + i];
  return s0 + s1 + (s2 + s3);
}

/** Σ |a[aStart+i]·b[bStart+i]|. */
export function dotMagnitude(a: Float32Array, aStart: number, b: Float32Array, bStart: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += Math.abs(a[aStart + i] * b[bStart + i]);
  return sum;
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** |d silu / dx|, for error propagation. */
export function siluSlope(x: number): number {
  const s = sigmoid(x);
  return Math.abs(s * (1 + x * (1 - s)));
}

/** Softmax of scores[0 … count) in place, f64; `sink` is one more score, left out of the result. All −∞ or any NaN gives NaN. */
export function softmax(scores: Float64Array, count: number, sink = -Infinity): void {
  let max = sink;
  for (let i = 0; i < count; i++) max = Math.max(max, scores[i]);
  let sum = sink === -Infinity ? 0 : Math.exp(sink - max);
  for (let i = 0; i < count; i++) sum += scores[i] = Math.exp(scores[i] - max);
  for (let i = 0; i < count; i++) scores[i] /= sum;
}
