/** Refuses misspelt options, naming the likely one. TypeScript users never meet it; JavaScript and JSON users do. */
import { TandemError } from '../errors.ts';
import { nearest } from '../nearest.ts';

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
