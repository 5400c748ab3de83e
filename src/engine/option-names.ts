/** Refuses misspelt options, naming the likely one. TypeScript users never meet it; JavaScript and JSON users do. */
import { TandemError } from '../errors.ts';

/** REQUEST_INVALID when `options` is no object or has a key that is not in `known`. `what` is where they were given. */
export function checkOptionNames(what: string, options: object, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null)
    throw new TandemError('REQUEST_INVALID', {
      room: 'engine',
      rule: `${what} takes its options as one object`,
      given: `got ${options === null ? 'null' : typeof options}`,
    });
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw new TandemError('REQUEST_INVALID', {
      room: 'engine',
      rule: `${what} has no option ${name}`,
      given: near && `did you mean ${near}?`,
      fix: `its options are ${known.join(', ')}`,
    });
  }
}

/** The name of `known` that was likely meant, if any is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const [near] = [...known].sort((a, b) => distance(name, a) - distance(name, b));
  return distance(name, near) <= 1 + name.length / 3 ? near : undefined;
}

/** Edit distance, letter case and `_` aside (`top_k` is `topK`). */
function distance(a: string, b: string): number {
  const [x, y] = [a, b].map((name) => name.replaceAll('_', '').toLowerCase());
  let row = Array.from({ length: y.length + 1 }, (_, j) => j);
  for (let i = 1; i <= x.length; i++) {
    const next = [i];
    for (let j = 1; j <= y.length; j++)
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (x[i - 1] === y[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[y.length];
}
