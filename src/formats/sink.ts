/** Where bytes go: the counterpart of `source.ts`. Nothing is visible under its name before `close` succeeds. */

export interface ByteSink {
  readonly name: string;
  /** Appends. The bytes are the caller's again when it resolves. Throws FILE_IO. */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes what was written the file. */
  close(): Promise<void>;
  /** Drops what was written; a file of that name from before stays. Does not throw. */
  abort(): Promise<void>;
}

export interface SinkFolder {
  readonly name: string;
  create(file: string): Promise<ByteSink>;
}
