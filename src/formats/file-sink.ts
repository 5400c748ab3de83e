/**
 * Writes local files, through a buffer: `NAME.partial` while it grows, renamed to `NAME` by `close`. An interrupted
 * write leaves no file that looks whole.
 */
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { TandemError } from '../errors.ts';
import { fileError } from './file-source.ts';
import type { ByteSink, SinkFolder } from './sink.ts';

/** Rows come in by the kilobyte, system calls are worth a megabyte. */
const BUFFER_BYTES = 1 << 20;

class FileSink implements ByteSink {
  readonly name: string;
  readonly #partial: string;
  #handle: FileHandle | undefined;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #used = 0;

  constructor(path: string, partial: string, handle: FileHandle) {
    this.name = path;
    this.#partial = partial;
    this.#handle = handle;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#used + bytes.length > BUFFER_BYTES) await this.#flush();
    if (bytes.length > BUFFER_BYTES) return this.#store(bytes);
    this.#buffer.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  async close(): Promise<void> {
    await this.#flush();
    try {
      await this.#open().close();
      this.#handle = undefined;
      await rename(this.#partial, this.name);
    } catch (cause) {
      throw cause instanceof TandemError ? cause : fileError('write', this.name, cause);
    }
  }

  async abort(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close().catch(() => {});
    await rm(this.#partial, { force: true }).catch(() => {});
  }

  async #flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    await this.#store(bytes);
  }

  async #store(bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += (await this.#open().write(bytes, done, Math.min(bytes.length - done, 1 << 30))).bytesWritten;
      }
    } catch (cause) {
      throw cause instanceof TandemError ? cause : fileError('write', this.name, cause);
    }
  }

  #open(): FileHandle {
    if (this.#handle === undefined)
      throw new TandemError('DISPOSED', { room: 'formats', rule: `${this.name} was closed` });
    return this.#handle;
  }
}

/** New files in a folder that exists. `create` throws FILE_NOT_FOUND or FILE_IO where it cannot. */
export function fileSinkFolder(path: string): SinkFolder {
  const full = resolve(path);
  return {
    name: full,
    async create(file) {
      const target = join(full, file);
      const partial = `${target}.partial`;
      const handle = await open(partial, 'w').catch((cause) => {
        throw fileError('write', target, cause);
      });
      return new FileSink(target, partial, handle);
    },
  };
}
