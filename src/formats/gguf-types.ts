/** Numbers and names of the GGUF file format (github.com/ggml-org/ggml, docs/gguf.md). */

/** 'GGUF' read as a little-endian u32. */
export const GGUF_MAGIC = 0x46554747;
/** Versions this room reads; it writes the last. They share one layout. */
export const GGUF_VERSIONS: readonly number[] = [2, 3];
/** Where `general.alignment` is absent. */
export const DEFAULT_ALIGNMENT = 32;
export const MAX_DIMENSIONS = 4;
/** Most tensors, and most metadata keys: twenty times the largest public file, small enough to hold in memory. */
export const MAX_ENTRIES = 1 << 20;

/** Metadata types; the index is the id in the file. */
export const VALUE_TYPES = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
] as const;
export type ValueType = (typeof VALUE_TYPES)[number];

/** Least bytes of a value; exact but for strings (a u64 length first) and arrays (u32 type, u64 count first). */
export const VALUE_BYTES: Readonly<Record<ValueType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: 8,
  array: 12,
  u64: 8,
  i64: 8,
  f64: 8,
};

/** How a tensor type is stored: enough to find the tensor, whether or not Tandem decodes it. */
export interface GgmlType {
  readonly id: number;
  readonly format: string;
  readonly blockSize: number;
  readonly blockBytes: number;
}

const TYPES: readonly GgmlType[] = (
  [
    [0, 'f32', 1, 4],
    [1, 'f16', 1, 2],
    [2, 'q4_0', 32, 18],
    [3, 'q4_1', 32, 20],
    [6, 'q5_0', 32, 22],
    [7, 'q5_1', 32, 24],
    [8, 'q8_0', 32, 34],
    [10, 'q2_k', 256, 84],
    [11, 'q3_k', 256, 110],
    [12, 'q4_k', 256, 144],
    [13, 'q5_k', 256, 176],
    [14, 'q6_k', 256, 210],
    [16, 'iq2_xxs', 256, 66],
    [17, 'iq2_xs', 256, 74],
    [18, 'iq3_xxs', 256, 98],
    [19, 'iq1_s', 256, 50],
    [20, 'iq4_nl', 32, 18],
    [21, 'iq3_s', 256, 110],
    [22, 'iq2_s', 256, 82],
    [23, 'iq4_xs', 256, 136],
    [24, 'i8', 1, 1],
    [25, 'i16', 1, 2],
    [26, 'i32', 1, 4],
    [27, 'i64', 1, 8],
    [28, 'f64', 1, 8],
    [29, 'iq1_m', 256, 56],
    [30, 'bf16', 1, 2],
    [34, 'tq1_0', 256, 54],
    [35, 'tq2_0', 256, 66],
    [39, 'mxfp4', 32, 17],
  ] as const
).map(([id, format, blockSize, blockBytes]) => ({ id, format, blockSize, blockBytes }));

const BY_ID: ReadonlyMap<number, GgmlType> = new Map(TYPES.map((type) => [type.id, type]));
const BY_FORMAT: ReadonlyMap<string, GgmlType> = new Map(TYPES.map((type) => [type.format, type]));

/** Every tensor type whose size is known, for messages: `f32 (0), f16 (1), …`. */
export const KNOWN_TYPES = TYPES.map(({ id, format }) => `${format} (${id})`).join(', ');

export function ggmlTypeById(id: number): GgmlType | undefined {
  return BY_ID.get(id);
}

export function ggmlTypeByFormat(format: string): GgmlType | undefined {
  return BY_FORMAT.get(format);
}

/** Name of shard `index` (from 0) of a split set: `stem-00001-of-0000N.gguf`. */
export function shardName(stem: string, index: number, count: number): string {
  const digits = (value: number) => String(value).padStart(5, '0');
  return `${stem}-${digits(index + 1)}-of-${digits(count)}.gguf`;
}

/** Splits a shard's file name; undefined for any other name. `index` counts from 0. */
export function parseShardName(file: string): { stem: string; index: number; count: number } | undefined {
  const match = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/.exec(file);
  if (match === null) return undefined;
  const index = Number(match[2]) - 1;
  const count = Number(match[3]);
  return index >= 0 && index < count ? { stem: match[1], index, count } : undefined;
}
