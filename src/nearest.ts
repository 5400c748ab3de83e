/** Which of the known names was likely meant by a misspelt one. */

/** The name of `known` that is near enough, if any. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined;
  const [near] = [...known].sort((a, b) => distance(name, a) - distance(name, b));
  return distance(name, near) <= 1 + name.length / 3 ? near : undefined;
}

/** Edit distance, letter case, `_` and `-` aside (`top_k` is `topK`). */
function distance(a: string, b: string): number {
  const [x, y] = [a, b].map((name) => name.replace(/[_-]/g, '').toLowerCase());
  let row = Array.from({ length: y.length + 1 }, (_, j) => j);
  for (let i = 1; i <= x.length; i++) {
    const next = [i];
    for (let j = 1; j <= y.length; j++)
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (x[i - 1] === y[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[y.length];
}
