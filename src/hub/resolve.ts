/** What a user calls a model → what `load` opens. The only place where names become paths; servers' clients never get here. */
import { existsSync } from 'node:fs';
import { findCached } from './models.ts';
import { parseReference } from './reference.ts';
import { cacheFolder } from './settings.ts';

/** A path that exists, and any text that is no reference, stays what it is; a reference is looked up in the cache. */
export async function localModel(name: string, cache: string = cacheFolder()): Promise<string> {
  if (existsSync(name)) return name;
  const reference = parseReference(name);
  return reference === undefined ? name : (await findCached(reference, cache)).path;
}
