/** The file of `--machine`. */
import { readFile } from 'node:fs/promises';
import { TandemError } from '../errors.ts';
import { fileError } from '../formats/file-source.ts';

/** What it holds. FILE_NOT_FOUND, FILE_IO; REQUEST_INVALID where it is no JSON. */
export async function machineJson(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((cause) => {
    throw fileError('read', path, cause);
  });
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'the file of --machine is JSON',
      given: `${path}: ${(cause as Error).message}`,
      fix: 'take what `tandem bench machine --json` prints on that machine',
      cause,
    });
  }
}
