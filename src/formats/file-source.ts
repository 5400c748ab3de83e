/** Bytes of local files. The only file of this room (with `file-sink.ts`) that touches the file system. */
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { TandemError } from '../errors.ts';
import { allocate, checkRange } from './bytes.ts';
import type { ByteSource, SourceFolder } from './source.ts';

/** Longest single read: libuv takes 32-bit lengths. */
const READ_LIMIT = 1 << 30;

class FileSource implements ByteSource {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  #handle: FileHandle | undefined;

  constructor(path: string, size: number, handle: FileHandle) {
    this.name = basename(path);
    this.path = path;
    this.size = size;
    this.#handle = handle;
  }

  async read(start: number, end: number): Promise<Uint8Array> {
    const handle = this.#handle;
    if (handle === undefined) throw new TandemError('DISPOSED', { room: 'formats', rule: `${this.path} was closed` });
    checkRange(this, start, end);
    const bytes = allocate(end - start, this.path);
    for (let done = 0; done < bytes.length; ) {
      const length = Math.min(bytes.length - done, READ_LIMIT);
      const { bytesRead } = await handle.read(bytes, done, length, start + done).catch((cause) => {
        throw fileError('read', this.path, cause);
      });
      if (bytesRead === 0) {
        throw new TandemError('FILE_IO', {
          room: 'formats',
          rule: `${this.path} had ${this.size} bytes when it was opened`,
          given: `it ends at byte ${start + done} now`,
          fix: 'do not change the file while it is in use',
        });
      }
      done += bytesRead;
    }
    return bytes;
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }
}

/** Opens a file for reading. FILE_NOT_FOUND where there is none, FILE_IO where it cannot be read. */
export async function openFile(path: string): Promise<ByteSource> {
  const full = resolve(path);
  let handle: FileHandle | undefined;
  try {
    // A pipe without a writer would be waited for; opened so it is refused below.
    handle = await open(full, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const found = await handle.stat();
    if (!found.isFile()) {
      throw new TandemError('FILE_IO', {
        room: 'formats',
        rule: 'a checkpoint is read from regular files',
        given: `${full} is a device or a pipe`,
        fix: 'save it as a file first',
      });
    }
    return new FileSource(full, found.size, handle);
  } catch (cause) {
    await handle?.close();
    throw cause instanceof TandemError ? cause : fileError('open', full, cause);
  }
}

/** The folder a path lies in (absolute) and its last part. */
export function splitPath(path: string): { folder: string; file: string } {
  const full = resolve(path);
  return { folder: dirname(full), file: basename(full) };
}

/** Whether the path is a folder. FILE_NOT_FOUND where there is nothing. */
export async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch((cause) => {
    throw fileError('open', path, cause);
  });
  return found.isDirectory();
}

/** The files of a folder. */
export function fileFolder(path: string): SourceFolder {
  const full = resolve(path);
  return {
    name: full,
    async open(file) {
      try {
        return await openFile(join(full, file));
      } catch (error) {
        if (error instanceof TandemError && error.code === 'FILE_NOT_FOUND') return undefined;
        throw error;
      }
    },
    async list() {
      return (
        await readdir(full).catch((cause) => {
          throw fileError('list', full, cause);
        })
      ).sort();
    },
  };
}

/** System error → what it means and what to do. */
const REASONS: Readonly<Record<string, readonly [given: string, fix: string]>> = {
  ENOENT: ['there is no such file or folder', 'check the path'],
  ENOTDIR: ['part of the path is no folder', 'check the path'],
  EISDIR: ['it is a folder', 'name a file in it'],
  EACCES: ['permission denied', 'check the permissions, or choose another place'],
  EPERM: ['permission denied', 'check the permissions, or choose another place'],
  ELOOP: ['its links lead in a circle', 'check the path'],
  ENAMETOOLONG: ['the name is too long', 'check the path'],
  EROFS: ['the file system is read-only', 'choose another folder'],
  ENOSPC: ['the disk is full', 'free space, or choose another folder'],
  EDQUOT: ['the disk quota is used up', 'free space, or choose another folder'],
  EFBIG: ['the file system does not hold files that large', 'choose another folder, or write a split set'],
  EMFILE: ['too many files are open', 'raise the limit with `ulimit -n`'],
};

/** Why a system call failed, in words. */
export function systemReason(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  return REASONS[code]?.[0] ?? (cause instanceof Error ? cause.message : String(cause));
}

/** The one error for a failed system call on `path`. */
export function fileError(verb: string, path: string, cause: unknown): TandemError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  const [given, fix] = REASONS[code] ?? [cause instanceof Error ? cause.message : String(cause), undefined];
  return new TandemError(code === 'ENOENT' || code === 'ENOTDIR' ? 'FILE_NOT_FOUND' : 'FILE_IO', {
    room: 'formats',
    rule: `cannot ${verb} ${path}`,
    given,
    fix,
    cause,
  });
}
