/** Bytes in memory behind the faces of files: for tests, and for what was never on a disk. */
import { TandemError } from '../errors.ts';
import { checkRange } from './bytes.ts';
import type { SinkFolder } from './sink.ts';
import type { ByteSource, SourceFolder } from './source.ts';

class MemorySource implements ByteSource {
  readonly name: string;
  readonly size: number;
  #bytes: Uint8Array | undefined;

  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.size = bytes.length;
    this.#bytes = bytes;
  }

  async read(start: number, end: number): Promise<Uint8Array> {
    if (this.#bytes === undefined) {
      throw new TandemError('DISPOSED', { room: 'formats', rule: `${this.name} was closed` });
    }
    checkRange(this, start, end);
    return this.#bytes.slice(start, end);
  }

  async close(): Promise<void> {
    this.#bytes = undefined;
  }
}

/** A source over bytes; they are not copied and must not change. */
export function memorySource(bytes: Uint8Array, name = 'memory'): ByteSource {
  return new MemorySource(name, bytes);
}

/** A folder of byte arrays or texts by file name. */
export function memoryFolder(files: Readonly<Record<string, Uint8Array | string>>, name = 'memory'): SourceFolder {
  const entries = new Map(Object.entries(files));
  return {
    name,
    async open(file) {
      const content = entries.get(file);
      if (content === undefined) return undefined;
      return memorySource(typeof content === 'string' ? new TextEncoder().encode(content) : content, file);
    },
    async list() {
      return [...entries.keys()].sort();
    },
  };
}

/** A folder that collects what is written to it; `files` has the closed ones. */
export function memorySinkFolder(name = 'memory'): SinkFolder & { readonly files: Record<string, Uint8Array> } {
  const files: Record<string, Uint8Array> = {};
  return {
    name,
    files,
    async create(file) {
      let chunks: Uint8Array[] = [];
      return {
        name: file,
        async write(bytes) {
          chunks.push(bytes.slice());
        },
        async close() {
          const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
          let at = 0;
          for (const chunk of chunks) {
            all.set(chunk, at);
            at += chunk.length;
          }
          files[file] = all;
        },
        async abort() {
          chunks = [];
        },
      };
    },
  };
}
