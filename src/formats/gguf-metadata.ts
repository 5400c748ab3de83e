/**
 * Values of GGUF metadata, decoded out of bytes. An array owns a copy of its bytes and decodes when asked, so opening a
 * file with 129,000 tokens walks over them and no more.
 *
 * Every length is compared with what the file can still hold before anything is read or allocated.
 */
import { decodeText } from './bytes.ts';
import type { MetadataArray, MetadataValue } from './checkpoint.ts';
import { VALUE_BYTES, VALUE_TYPES, type ValueType } from './gguf-types.ts';
import type { HeaderCursor } from './header-cursor.ts';

/** Arrays may hold arrays; no writer goes deeper than two. */
const MAX_DEPTH = 8;

/** Reads the type id of a value. */
export function readType(cursor: HeaderCursor, what: string): ValueType {
  const id = cursor.u32(what);
  const type = VALUE_TYPES[id];
  if (type === undefined) {
    throw cursor.invalid(`metadata types are 0 (u8) to ${VALUE_TYPES.length - 1} (f64)`, `${what} has type ${id}`);
  }
  return type;
}

/** Reads one value of `type` and moves past it. */
export function readValue(cursor: HeaderCursor, type: ValueType, what: string): MetadataValue {
  if (type !== 'array') return readScalar(cursor, type, what);
  const of = readType(cursor, what);
  const length = cursor.count(VALUE_BYTES[of], what);
  const start = cursor.position;
  skipElements(cursor, of, length, what, 1);
  return new PackedArray(of, length, cursor.copy(start, cursor.position));
}

function readScalar(cursor: HeaderCursor, type: Exclude<ValueType, 'array'>, what: string): MetadataValue {
  if (type === 'string') return cursor.text(what);
  const at = cursor.take(VALUE_BYTES[type], what);
  return decodeNumber(cursor.view, at, type);
}

function skipElements(cursor: HeaderCursor, type: ValueType, length: number, what: string, depth: number): void {
  if (type === 'string') {
    for (let i = 0; i < length; i++) cursor.take(cursor.count(1, what), what);
  } else if (type === 'array') {
    if (depth > MAX_DEPTH) {
      throw cursor.invalid(`metadata arrays are nested at most ${MAX_DEPTH} deep`, `${what} goes deeper`);
    }
    for (let i = 0; i < length; i++) {
      const of = readType(cursor, what);
      skipElements(cursor, of, cursor.count(VALUE_BYTES[of], what), what, depth + 1);
    }
  } else {
    cursor.take(VALUE_BYTES[type] * length, what);
  }
}

function decodeNumber(view: DataView, at: number, type: Exclude<ValueType, 'array' | 'string'>): MetadataValue {
  switch (type) {
    case 'u8':
      return view.getUint8(at);
    case 'i8':
      return view.getInt8(at);
    case 'u16':
      return view.getUint16(at, true);
    case 'i16':
      return view.getInt16(at, true);
    case 'u32':
      return view.getUint32(at, true);
    case 'i32':
      return view.getInt32(at, true);
    case 'f32':
      return view.getFloat32(at, true);
    case 'bool':
      return view.getUint8(at) !== 0;
    case 'u64':
      return exact(view.getBigUint64(at, true));
    case 'i64':
      return exact(view.getBigInt64(at, true));
    case 'f64':
      return view.getFloat64(at, true);
  }
}

/** A number where that is exact. */
function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * Elements one after the other, as in the file. Those without a fixed size are found through an index made at the first
 * `at`; `toArray` walks and needs none.
 */
class PackedArray implements MetadataArray {
  readonly type: ValueType;
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #starts: Uint32Array | undefined;

  constructor(type: ValueType, length: number, bytes: Uint8Array) {
    this.type = type;
    this.length = length;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  at(index: number): MetadataValue {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) {
      throw new RangeError(`index ${index} is outside of an array of ${this.length}`);
    }
    if (this.type !== 'string' && this.type !== 'array') {
      return decodeNumber(this.#view, index * VALUE_BYTES[this.type], this.type);
    }
    this.#starts ??= this.#index();
    return this.#decode(this.#starts[index]);
  }

  toArray(): MetadataValue[] {
    const values: MetadataValue[] = [];
    if (this.type !== 'string' && this.type !== 'array') {
      const size = VALUE_BYTES[this.type];
      for (let i = 0; i < this.length; i++) values.push(decodeNumber(this.#view, i * size, this.type));
      return values;
    }
    for (let i = 0, at = 0; i < this.length; i++, at = this.#end(at)) values.push(this.#decode(at));
    return values;
  }

  /** The string or array that starts at byte `at`. */
  #decode(at: number): MetadataValue {
    if (this.type === 'string') return decodeText(this.#bytes, at + 8, this.#end(at));
    const of = VALUE_TYPES[this.#view.getUint32(at, true)];
    return new PackedArray(of, this.#count(at + 4), this.#bytes.subarray(at + 12, this.#end(at)));
  }

  /** Where the string or array that starts at byte `at` ends. The bytes were validated when they were read. */
  #end(at: number): number {
    return this.type === 'string' ? at + 8 + this.#count(at) : this.#arrayEnd(at);
  }

  #arrayEnd(at: number): number {
    const of = VALUE_TYPES[this.#view.getUint32(at, true)];
    const length = this.#count(at + 4);
    let end = at + 12;
    if (of === 'string') for (let i = 0; i < length; i++) end += 8 + this.#count(end);
    else if (of === 'array') for (let i = 0; i < length; i++) end = this.#arrayEnd(end);
    else end += VALUE_BYTES[of] * length;
    return end;
  }

  /** Lengths in a header fit 32 bits: the cursor refuses larger headers. */
  #count(at: number): number {
    return this.#view.getUint32(at, true);
  }

  #index(): Uint32Array {
    const starts = new Uint32Array(this.length);
    for (let i = 0, at = 0; i < this.length; i++, at = this.#end(at)) starts[i] = at;
    return starts;
  }
}
