/**
 * Where bytes come from. Floors 0–4 read files only through this face, so their tests run on memory.
 * It never caches and never interprets.
 */
export interface ByteSource {
  /** What to call it in messages, usually the path. */
  readonly name: string;
  /** Length in bytes (may exceed 2^32). */
  readonly size: number;
  /** Absolute path when the bytes are a local file: native maps it by this name. */
  readonly path?: string;
  /** Bytes [start, end). Throws FILE_IO when fewer are there. The result is the caller's own. */
  read(start: number, end: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Opens sibling files of a checkpoint (shards, index, config). Resolves to undefined where there is no such file. */
export interface SourceFolder {
  readonly name: string;
  open(file: string): Promise<ByteSource | undefined>;
  list(): Promise<string[]>;
}
