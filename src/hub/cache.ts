/**
 * The cache of files, as Hugging Face's own tools lay it out, so that they and we share every model:
 *
 *     models--org--name/blobs/<etag>                 the bytes, named by checksum
 *     models--org--name/refs/main                    the commit it stood at when it was pulled
 *     models--org--name/snapshots/<commit>/<path>    links to the blobs
 *     .locks/models--org--name/<etag>.tandem.lock
 */
import { randomUUID } from 'node:crypto';
import {
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { TandemError } from '../errors.ts';
import type { BlobPlace } from './blob.ts';
import { COMMIT, type HubFile } from './listing.ts';
import { Lock } from './lock.ts';
import type { SizedFile } from './variants.ts';

/** A file of a snapshot: where it is, and the blob behind it. */
export interface CachedFile extends SizedFile {
  readonly blob: string;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
}

export interface Snapshot {
  readonly repository: string;
  readonly commit: string;
  readonly folder: string;
  /** Names that point here, e.g. `main`. */
  readonly refs: readonly string[];
  readonly files: readonly CachedFile[];
}

export class Cache {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = resolve(folder);
  }

  repositoryFolder(repository: string): string {
    return join(this.folder, `models--${repository.replace('/', '--')}`);
  }

  place(repository: string, etag: string): BlobPlace {
    const folder = this.repositoryFolder(repository);
    const blob = join(folder, 'blobs', etag);
    const locks = join(this.folder, '.locks', `models--${repository.replace('/', '--')}`);
    return { blob, partial: `${blob}.tandem.incomplete`, lock: join(locks, `${etag}.tandem.lock`) };
  }

  /** Names a commit's files, whose blobs are there, and then the ref that led to it. FILE_IO where a blob is gone, or names cannot be. */
  async link(repository: string, commit: string, files: readonly HubFile[], ref: string | undefined): Promise<void> {
    const folder = this.repositoryFolder(repository);
    for (const { path, etag } of files) {
      const blob = join(folder, 'blobs', etag);
      if ((await stat(blob).catch(() => undefined)) === undefined) throw gone(path);
      const link = join(folder, 'snapshots', commit, ...path.split('/'));
      const target = relative(dirname(link), blob);
      if ((await readlink(link).catch(() => undefined)) === target) continue;
      await putInPlace(link, (aside) => symlink(target, aside).catch((cause) => Promise.reject(noLinks(link, cause))));
    }
    if (ref === undefined) return;
    const file = join(folder, 'refs', ...ref.split('/'));
    if ((await readFile(file, 'utf8').catch(() => '')) === commit) return; // a cache that is only read stays as it is
    await putInPlace(file, (aside) => writeFile(aside, commit));
  }

  /** All repositories with their snapshots; empty where there is no cache. */
  async snapshots(): Promise<Snapshot[]> {
    const found: Snapshot[] = [];
    for (const name of await names(this.folder)) {
      const match = /^models--(.+?)--(.+)$/.exec(name);
      if (match !== null) found.push(...(await this.snapshotsOf(`${match[1]}/${match[2]}`)));
    }
    return found;
  }

  /** Snapshots of a repository, the newest first, whose dangling links are left out. */
  async snapshotsOf(repository: string): Promise<Snapshot[]> {
    const folder = this.repositoryFolder(repository);
    const refs = await refsIn(join(folder, 'refs'));
    const commits = await names(join(folder, 'snapshots'));
    const dated = await Promise.all(
      commits.map(async (commit) => {
        const path = join(folder, 'snapshots', commit);
        const at = (await stat(path).catch(() => undefined))?.mtimeMs ?? 0;
        const pointing = [...refs].flatMap(([ref, to]) => (to === commit ? [ref] : []));
        return { at, repository, commit, folder: path, refs: pointing, files: await filesIn(path) };
      }),
    );
    return dated.sort((a, b) => b.at - a.at);
  }

  /** Whether there is anything of a repository, be it an unfinished download. */
  async has(repository: string): Promise<boolean> {
    return (await stat(this.repositoryFolder(repository)).catch(() => undefined)) !== undefined;
  }

  /** The commit of a branch, a tag or a commit; undefined where it was never pulled. */
  async commitOf(repository: string, revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision;
    const file = join(this.repositoryFolder(repository), 'refs', ...revision.split('/'));
    return (await readFile(file, 'utf8').catch(() => undefined))?.trim();
  }

  /** Remembers that the files are used now. */
  async touch(files: readonly CachedFile[]): Promise<void> {
    const now = new Date();
    await Promise.all(
      files.map(async ({ blob }) => {
        const found = await stat(blob).catch(() => undefined);
        if (found) await utimes(blob, now, found.mtime).catch(() => {}); // a cache that is only read stays as it is
      }),
    );
  }

  /**
   * Removes links and then those of their blobs that nobody links to any more; the folder of a repository when nothing is
   * left in it. `all`: blobs without a link, what is left of unfinished downloads, and the folder in any case. Returns the
   * bytes that became free. REQUEST_INVALID, and nothing is removed, where a folder of it is a link out of the cache, or
   * somebody downloads it now.
   */
  async remove(repository: string, links: readonly string[], { all = false } = {}): Promise<number> {
    const folder = this.repositoryFolder(repository);
    const locks = dirname(this.place(repository, '').lock);
    await this.#refuseOutside(folder, links);
    const holder = await Lock.holderIn(locks);
    if (holder !== undefined) throw busy(repository, holder);
    const doomed = new Set(await Promise.all(links.map(realOf)));
    for (const link of links) await rm(link, { force: true });
    const left = await this.snapshotsOf(repository);
    const used = new Set(await Promise.all(left.flatMap(({ files }) => files.map(({ blob }) => realOf(blob)))));
    let [freed, kept] = [0, 0];
    for (const name of await names(join(folder, 'blobs'))) {
      const blob = join(folder, 'blobs', name);
      const real = await realOf(blob);
      if (used.has(real) || !(all || doomed.has(real))) {
        kept++;
        continue;
      }
      // An unfinished one is a sparse file: its length says nothing.
      if (!name.includes('.incomplete')) freed += (await stat(blob).catch(() => undefined))?.size ?? 0;
      await rm(blob, { recursive: true, force: true });
    }
    if (kept === 0 && used.size === 0) {
      await rm(folder, { recursive: true, force: true });
      await rm(locks, { recursive: true, force: true });
    } else
      for (const { folder: snapshot, files } of left) if (files.length === 0) await rm(snapshot, { recursive: true });
    return freed;
  }

  /** Folders that lead elsewhere hold what is not the cache's. */
  async #refuseOutside(folder: string, links: readonly string[]): Promise<void> {
    const inside = `${await realpath(this.folder)}${sep}`;
    const folders = new Set([folder, join(folder, 'blobs'), ...links.map((link) => dirname(link))]);
    for (const each of folders) {
      const real = await realpath(each).catch(() => undefined);
      if (real === undefined || `${real}${sep}`.startsWith(inside)) continue;
      throw new TandemError('REQUEST_INVALID', {
        room: 'hub',
        rule: 'what is removed lies in the cache',
        given: `${each} leads to ${real}`,
        fix: 'remove it there by hand, and the link here',
      });
    }
  }
}

/** Where a path leads through all links; itself where it leads nowhere. */
function realOf(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}

/** Written beside its place and moved there: whoever looks sees the old or the new, also of two that do it at once. */
async function putInPlace(path: string, write: (aside: string) => Promise<void>): Promise<void> {
  const folder = dirname(path);
  const aside = join(folder, `.${randomUUID()}`);
  try {
    await mkdir(folder, { recursive: true });
    await write(aside);
    await rename(aside, path);
  } catch (cause) {
    await rm(aside, { force: true }).catch(() => {});
    if (cause instanceof TandemError) throw cause;
    throw new TandemError('FILE_IO', {
      room: 'hub',
      rule: 'a file that was downloaded gets its name in the cache',
      given: `${path}: ${(cause as Error).message}`,
      fix: 'look what is in its place, and at permissions; what has come is kept',
      cause,
    });
  }
}

function noLinks(link: string, cause: unknown): TandemError {
  return new TandemError('FILE_IO', {
    room: 'hub',
    rule: 'a cache of models is on a file system with symbolic links',
    given: `${link}: ${(cause as Error).message}`,
    fix: 'set HF_HUB_CACHE to a folder on another file system',
    cause,
  });
}

function gone(path: string): TandemError {
  return new TandemError('FILE_IO', {
    room: 'hub',
    rule: 'what was downloaded stays in the cache',
    given: `the bytes of ${path} are not there any more`,
    fix: 'somebody removed them meanwhile; run it again',
  });
}

function busy(repository: string, holder: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'hub',
    rule: 'a model that is downloaded now stays where it is',
    given: `${holder} downloads ${repository}`,
    fix: 'wait for it, or stop it (what has come is kept)',
  });
}

async function names(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(() => [])).sort();
}

async function refsIn(folder: string): Promise<Map<string, string>> {
  const files = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const refs = new Map<string, string>();
  for (const file of files) {
    if (!file.isFile()) continue;
    const path = join(file.parentPath ?? file.path, file.name);
    const commit = await readFile(path, 'utf8').catch(() => undefined);
    if (commit !== undefined) refs.set(relative(folder, path).split(sep).join('/'), commit.trim());
  }
  return refs;
}

async function filesIn(folder: string): Promise<CachedFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files: CachedFile[] = [];
  for (const entry of entries) {
    if (entry.isDirectory()) continue;
    const link = join(entry.parentPath ?? entry.path, entry.name);
    const found = await stat(link).catch(() => undefined);
    if (!found?.isFile()) continue;
    const target = await readlink(link).catch(() => undefined);
    const blob = target === undefined ? link : resolve(dirname(link), target);
    files.push({ path: relative(folder, link).split(sep).join('/'), size: found.size, blob, usedAt: found.atimeMs });
  }
  return files;
}
