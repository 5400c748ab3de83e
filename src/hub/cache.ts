/**
 * The cache of files, as Hugging Face's own tools lay it out, so that they and we share every model:
 *
 *     models--org--name/blobs/<etag>                 the bytes, named by checksum
 *     models--org--name/refs/main                    the commit it stood at when it was pulled
 *     models--org--name/snapshots/<commit>/<path>    links to the blobs
 *     .locks/models--org--name/<etag>.tandem.lock
 */
import { mkdir, readdir, readFile, readlink, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { TandemError } from '../errors.ts';
import type { BlobPlace } from './blob.ts';
import { COMMIT, type HubFile } from './listing.ts';
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

  /** Names a commit's files, whose blobs are there, and then the ref that led to it. */
  async link(repository: string, commit: string, files: readonly HubFile[], ref: string | undefined): Promise<void> {
    const folder = this.repositoryFolder(repository);
    for (const { path, etag } of files) {
      const link = join(folder, 'snapshots', commit, ...path.split('/'));
      const target = relative(dirname(link), join(folder, 'blobs', etag));
      if ((await readlink(link).catch(() => undefined)) === target) continue;
      await mkdir(dirname(link), { recursive: true });
      await rm(`${link}.new`, { force: true });
      await symlink(target, `${link}.new`).catch((cause) => {
        throw new TandemError('FILE_IO', {
          room: 'hub',
          rule: 'a cache of models is on a file system with symbolic links',
          given: `${link}: ${(cause as Error).message}`,
          fix: 'set HF_HUB_CACHE to a folder on another file system',
          cause,
        });
      });
      await rename(`${link}.new`, link);
    }
    if (ref === undefined) return;
    const file = join(folder, 'refs', ...ref.split('/'));
    if ((await readFile(file, 'utf8').catch(() => '')) === commit) return; // a cache that is only read stays as it is
    await mkdir(dirname(file), { recursive: true });
    await writeFile(`${file}.new`, commit);
    await rename(`${file}.new`, file);
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
   * Removes links and then the blobs nobody links to any more; the folder of a repository with them, and with what is left
   * of unfinished downloads, when no file of it is left. Returns the bytes that became free.
   */
  async remove(repository: string, links: readonly string[]): Promise<number> {
    const folder = this.repositoryFolder(repository);
    for (const link of links) await rm(link, { force: true });
    const left = await this.snapshotsOf(repository);
    const used = new Set(left.flatMap(({ files }) => files.map(({ blob }) => blob)));
    let freed = 0;
    for (const name of await names(join(folder, 'blobs'))) {
      const blob = join(folder, 'blobs', name);
      if (used.has(blob) || name.includes('.incomplete')) continue;
      freed += (await stat(blob).catch(() => undefined))?.size ?? 0;
      await rm(blob, { force: true });
    }
    if (used.size === 0) {
      await rm(folder, { recursive: true, force: true });
      await rm(dirname(this.place(repository, '').lock), { recursive: true, force: true });
    } else
      for (const { folder: snapshot, files } of left) if (files.length === 0) await rm(snapshot, { recursive: true });
    return freed;
  }
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
    refs.set(relative(folder, path).split(sep).join('/'), (await readFile(path, 'utf8')).trim());
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
