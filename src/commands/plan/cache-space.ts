/** Room for a download. */
import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Cache } from '../../hub/cache.ts';
import { cacheFolder } from '../../hub/settings.ts';

/**
 * Bytes that are free where a repository would be pulled to; undefined where that is not known, and where something of it
 * is there already, of which `tandem pull` counts what is missing.
 */
export async function cacheSpace(repository: string): Promise<number | undefined> {
  const cache = new Cache(cacheFolder());
  if (existsSync(cache.repositoryFolder(repository))) return undefined;
  let folder = cache.folder;
  while (!existsSync(folder) && dirname(folder) !== folder) folder = dirname(folder);
  const space = await statfs(folder).catch(() => undefined);
  return space && space.blocks > 0 ? space.bavail * space.bsize : undefined;
}
