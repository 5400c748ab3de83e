/** The models of a cache: found by name without any network, listed, removed. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TandemError } from '../errors.ts';
import { INDEX_FILE } from '../formats/huggingface.ts';
import { Cache, type CachedFile, type Snapshot } from './cache.ts';
import { formatReference, type ModelReference } from './reference.ts';
import { chooseVariant, type Variant, variantsOf } from './variants.ts';

/** A variant of which every file is there. */
export interface CachedModel {
  /** `org/name:QUANT`; only `org/name` where it is a safetensors model. */
  readonly name: string;
  readonly repository: string;
  readonly variant: Variant<CachedFile>;
  readonly commit: string;
  readonly refs: readonly string[];
  /** What `load` takes. */
  readonly path: string;
  /** Bytes on the disk. */
  readonly bytes: number;
  /** Milliseconds since 1970; as far as the file system tells. */
  readonly usedAt: number;
}

/** Every whole model, by name; of one that is there at several commits the newest. */
export async function cachedModels(cacheFolder: string): Promise<CachedModel[]> {
  const models = new Map<string, CachedModel>();
  for (const snapshot of await new Cache(cacheFolder).snapshots())
    for (const model of await modelsIn(snapshot)) if (!models.has(model.name)) models.set(model.name, model);
  return [...models.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * The model that a name means, where it was pulled: at the revision that is named, else at the newest commit that has it.
 * FILE_NOT_FOUND where nothing of the repository or not this quantization is there; REQUEST_INVALID where several are.
 */
export async function findCached(reference: ModelReference, cacheFolder: string): Promise<CachedModel> {
  const { repository, quant, revision } = reference;
  const cache = new Cache(cacheFolder);
  const commit = await cache.commitOf(repository, revision ?? 'main');
  const all = await cache.snapshotsOf(repository);
  const current = all.filter((snapshot) => snapshot.commit === commit);
  const others = revision === undefined ? all.filter((snapshot) => snapshot.commit !== commit) : [];
  const models = new Map<string, CachedModel>();
  for (const snapshot of [...current, ...others])
    for (const model of await modelsIn(snapshot))
      if (!models.has(model.variant.name)) models.set(model.variant.name, model);
  if (models.size === 0) throw absent(reference, []);
  let variant: Variant<CachedFile>;
  try {
    variant = chooseVariant(
      repository,
      [...models.values()].map((model) => model.variant),
      quant,
    );
  } catch (error) {
    throw quant === undefined ? error : absent(reference, [...models.keys()]);
  }
  const found = models.get(variant.name)!;
  await cache.touch(found.variant.files);
  return found;
}

/**
 * Removes variants by their names from every snapshot of a repository; without names all of it, also what is left of
 * unfinished downloads. The bytes that became free.
 */
export async function removeCached(
  repository: string,
  names: readonly string[] | undefined,
  cacheFolder: string,
): Promise<number> {
  const cache = new Cache(cacheFolder);
  const links: string[] = [];
  for (const { folder, files } of await cache.snapshotsOf(repository)) {
    const doomed =
      names === undefined
        ? files
        : variantsOf(files).flatMap((variant) => (names.includes(variant.name) ? variant.files : []));
    links.push(...doomed.map(({ path }) => join(folder, ...path.split('/'))));
  }
  return cache.remove(repository, links, { all: names === undefined });
}

async function modelsIn(snapshot: Snapshot): Promise<CachedModel[]> {
  const models: CachedModel[] = [];
  for (const variant of variantsOf(snapshot.files)) {
    if (!(await isWhole(snapshot, variant))) continue;
    const { repository, commit, refs, folder } = snapshot;
    const quant = variant.kind === 'gguf' ? variant.name : undefined;
    models.push({
      name: formatReference({ repository, quant }),
      repository,
      variant,
      commit,
      refs,
      path: variant.kind === 'gguf' ? join(folder, ...variant.files[0].path.split('/')) : folder,
      bytes: variant.files.reduce((sum, { size }) => sum + size, 0),
      usedAt: Math.max(...variant.files.map(({ usedAt }) => usedAt)),
    });
  }
  return models;
}

/** Other tools put a file's name there as soon as it has come, before the others of the model. */
async function isWhole({ folder }: Snapshot, variant: Variant<CachedFile>): Promise<boolean> {
  if (!variant.complete) return false;
  if (variant.kind === 'gguf' || !variant.files.some(({ path }) => path === INDEX_FILE)) return true;
  try {
    const { weight_map } = JSON.parse(await readFile(join(folder, INDEX_FILE), 'utf8')) as {
      weight_map: Record<string, string>;
    };
    const there = new Set(variant.files.map(({ path }) => path));
    return Object.values(weight_map).every((file) => there.has(file));
  } catch {
    return false;
  }
}

function absent(reference: ModelReference, others: readonly string[]): TandemError {
  const name = formatReference(reference);
  return new TandemError('FILE_NOT_FOUND', {
    room: 'hub',
    rule: 'a model named organization/model was pulled before',
    given: `${name} is not in the cache${others.length > 0 ? `, only ${others.join(', ')}` : ''}`,
    fix: `tandem pull ${name}, or give the path of a file or folder`,
  });
}
