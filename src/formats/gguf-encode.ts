/** GGUF metadata to bytes: the counterpart of `gguf-metadata.ts`. */
import { TandemError } from '../errors.ts';
import type { MetadataArray, MetadataValue } from './checkpoint.ts';
import type { GgufCheckpoint } from './gguf.ts';
import { VALUE_BYTES, VALUE_TYPES, type ValueType } from './gguf-types.ts';

/** A metadata value with its type in the file, which the value alone does not tell. */
export interface GgufValue {
  readonly type: ValueType;
  readonly value: MetadataValue;
}

/** A metadata array over values in memory. */
export function metadataArray(type: ValueType, values: readonly MetadataValue[]): MetadataArray {
  return { type, length: values.length, at: (index) => values[index], toArray: () => [...values] };
}

/** Metadata of an opened file as the writer takes it. */
export function typedMetadata(checkpoint: GgufCheckpoint): Map<string, GgufValue> {
  const typed = new Map<string, GgufValue>();
  for (const [key, value] of checkpoint.metadata) typed.set(key, { type: checkpoint.metadataTypes.get(key)!, value });
  return typed;
}

const INTEGERS: Readonly<Record<string, readonly [least: bigint, most: bigint]>> = {
  u8: [0n, 255n],
  i8: [-128n, 127n],
  u16: [0n, 65535n],
  i16: [-32768n, 32767n],
  u32: [0n, 2n ** 32n - 1n],
  i32: [-(2n ** 31n), 2n ** 31n - 1n],
  u64: [0n, 2n ** 64n - 1n],
  i64: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** Little-endian bytes that grow. */
export class HeaderBuilder {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  #used = 0;
  readonly #utf8 = new TextEncoder();

  get length(): number {
    return this.#used;
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#used);
  }

  u32(value: number): void {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  text(value: string): void {
    const bytes = this.#utf8.encode(value);
    this.u64(bytes.length);
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  zeros(count: number): void {
    this.#reserve(count); // fresh memory is zero and nothing is ever taken back
  }

  /** A type id and its value. REQUEST_INVALID, naming `key`, where the value does not fit the type. */
  typedValue(key: string, { type, value }: GgufValue): void {
    this.u32(VALUE_TYPES.indexOf(type));
    this.#value(key, type, value);
  }

  #value(key: string, type: ValueType, value: MetadataValue): void {
    if (type === 'string' && typeof value === 'string') this.text(value);
    else if (type === 'bool' && typeof value === 'boolean') this.#number('u8', value ? 1 : 0);
    else if (type === 'array' && typeof value === 'object') this.#array(key, value);
    else if ((type === 'f32' || type === 'f64') && typeof value === 'number') this.#number(type, value);
    else if (type in INTEGERS && isWithin(value, INTEGERS[type])) this.#number(type, value);
    else {
      throw new TandemError('REQUEST_INVALID', {
        room: 'formats',
        rule: 'a metadata value fits its type',
        given: `"${key}" is ${typeof value === 'object' ? `an array of ${value.type}` : String(value)}, its type ${type}`,
      });
    }
  }

  #array(key: string, array: MetadataArray): void {
    const of = VALUE_TYPES.find((type) => type === array.type);
    if (of === undefined) {
      throw new TandemError('REQUEST_INVALID', {
        room: 'formats',
        rule: `metadata types are ${VALUE_TYPES.join(', ')}`,
        given: `"${key}" is an array of ${array.type}`,
      });
    }
    this.u32(VALUE_TYPES.indexOf(of));
    this.u64(array.length);
    for (const element of array.toArray()) this.#value(key, of, element);
  }

  #number(type: ValueType, value: number | bigint): void {
    const at = this.#reserve(VALUE_BYTES[type]);
    switch (type) {
      case 'f32':
        this.#view.setFloat32(at, Number(value), true);
        break;
      case 'f64':
        this.#view.setFloat64(at, Number(value), true);
        break;
      case 'u64':
      case 'i64':
        this.#view.setBigInt64(at, BigInt.asIntN(64, BigInt(value)), true);
        break;
      case 'u32':
      case 'i32':
        this.#view.setInt32(at, Number(value), true);
        break;
      case 'u16':
      case 'i16':
        this.#view.setInt16(at, Number(value), true);
        break;
      default:
        this.#view.setInt8(at, Number(value));
    }
  }

  #reserve(size: number): number {
    const at = this.#used;
    this.#used += size;
    if (this.#used > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#used, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

function isWithin(value: MetadataValue, [least, most]: readonly [bigint, bigint]): value is number | bigint {
  if (typeof value === 'number') return Number.isInteger(value) && least <= BigInt(value) && BigInt(value) <= most;
  return typeof value === 'bigint' && least <= value && value <= most;
}
