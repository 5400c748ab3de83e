/** What several test files need and one of them makes, such as a compiled command line: whoever holds the lock makes it. */
import { mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('../node_modules/', import.meta.url));

/**
 * Takes the lock `name`; gives what releases it, or undefined where another process has it. A folder is made by one process
 * only; one that is older than `staleMs` was left by a process that was killed.
 */
export function tryLock(name: string, staleMs: number): (() => void) | undefined {
  const path = join(FOLDER, `.tandem-${name}`);
  try {
    mkdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    const since = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - since < staleMs) return undefined;
  }
  return () => rmSync(path, { recursive: true, force: true });
}
