/** Asks a person yes or no. */
import { createInterface } from 'node:readline/promises';
import { TandemError } from '../errors.ts';

/** True where somebody sits at a terminal who can answer. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** No is the default. REQUEST_INVALID where nobody can answer. */
export async function confirm(question: string, command: string, flag: string): Promise<boolean> {
  if (!canAsk())
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: `${command} asks before it does this`,
      given: `${question} and there is no terminal to answer at`,
      fix: `add ${flag}`,
    });
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await lines.question(`${question} [y/N] `)).trim());
  } finally {
    lines.close();
  }
}
