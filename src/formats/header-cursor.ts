/**
 * Reads a binary header of unknown length out of a ByteSource through a window that grows.
 *
 * Parsing is synchronous inside the window. Where it runs out, `parse` enlarges the window and starts that entry anew:
 *
 *     file    [0 ······ committed ······ position ······ windowEnd ············ size)
 *                        └ entry being parsed ┘
 *
 * A length is checked against the rest of the file before anything is read, so an absurd one costs nothing.
 */
import { TandemError } from '../errors.ts';
import { allocate, decodeText } from './bytes.ts';
import type { ByteSource } from './source.ts';

const FIRST_WINDOW = 1 << 20;
/** No real header comes near; a corrupt length must not make us read a disk full of weights. */
const HEADER_LIMIT = 1 << 27;

/** Thrown inside an entry that needs bytes up to `end`; never leaves `parse`. */
class WindowTooSmall {
  readonly end: number;
  constructor(end: number) {
    this.end = end;
  }
}

export class HeaderCursor {
  readonly source: ByteSource;
  /** Next byte to read, absolute. */
  position = 0;
  /** The window, from byte 0 of the file. */
  view: DataView;
  #bytes: Uint8Array;

  constructor(source: ByteSource) {
    this.source = source;
    this.#bytes = new Uint8Array(0);
    this.view = new DataView(this.#bytes.buffer);
  }

  /** Runs a synchronous `entry`, again from its start with a larger window where the first was too small. */
  async parse<T>(entry: () => T): Promise<T> {
    const committed = this.position;
    for (;;) {
      try {
        return entry();
      } catch (error) {
        if (!(error instanceof WindowTooSmall)) throw error;
        this.position = committed;
        await this.#grow(error.end);
      }
    }
  }

  /** Moves past `size` bytes and returns where they start (in file and window alike). */
  take(size: number, what: string): number {
    const start = this.position;
    const end = start + size;
    if (end > this.#bytes.length) this.#need(end, what);
    this.position = end;
    return start;
  }

  u32(what: string): number {
    return this.view.getUint32(this.take(4, what), true);
  }

  /** A u64 as number; beyond 2^53 it is rounded, which is enough to refuse it. */
  u64(what: string): number {
    const at = this.take(8, what);
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32;
  }

  /** A u64 count of things of at least `least` bytes each, which the rest of the file must be able to hold. */
  count(least: number, what: string): number {
    const count = this.u64(what);
    const left = this.source.size - this.position;
    if (count * least > left) {
      throw this.invalid(
        `${what} lies within the file`,
        `it claims ${count} entries of ${least} or more bytes where ${left} bytes are left`,
      );
    }
    return count;
  }

  text(what: string): string {
    const length = this.count(1, what);
    const start = this.take(length, what);
    return decodeText(this.#bytes, start, start + length);
  }

  copy(start: number, end: number): Uint8Array {
    return this.#bytes.slice(start, end);
  }

  invalid(rule: string, given: string, fix = 'the file is damaged or no GGUF; fetch it again'): TandemError {
    return new TandemError('FORMAT_INVALID', { room: 'formats', rule, given: `${this.source.name}: ${given}`, fix });
  }

  #need(end: number, what: string): never {
    if (end > this.source.size) {
      throw this.invalid(
        'a GGUF file holds its whole header',
        `it ends at byte ${this.source.size}, inside ${what}`,
        'the file is truncated; fetch it again',
      );
    }
    if (end > HEADER_LIMIT) {
      throw this.invalid(`a GGUF header has at most ${HEADER_LIMIT} bytes`, `${what} ends at byte ${end}`);
    }
    throw new WindowTooSmall(end);
  }

  async #grow(needed: number): Promise<void> {
    const have = this.#bytes.length;
    const end = Math.min(Math.max(needed, FIRST_WINDOW, have * 4), this.source.size, HEADER_LIMIT);
    const more = await this.source.read(have, end);
    if (have === 0) this.#bytes = more;
    else {
      const bytes = allocate(end, `the header of ${this.source.name}`);
      bytes.set(this.#bytes);
      bytes.set(more, have);
      this.#bytes = bytes;
    }
    this.view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
  }
}
