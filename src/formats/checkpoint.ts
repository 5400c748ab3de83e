/**
 * A checkpoint: named tensors with their place in files, plus metadata, whatever the container.
 * GGUF files (also split) and Hugging Face folders open to the same face. Opening reads headers only.
 */
import type { FormatName } from './dtype.ts';
import type { ByteSource } from './source.ts';

/** One tensor. Shapes are row-major, outermost dimension first: a matrix is [N, K], fused experts [E, N, K]. */
export interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  /** Weight format, or an integer type that carries no weights (`i32`, `i64` …) or an unknown one (`unknown:41`). */
  readonly format: FormatName | (string & {});
  /** Index into `Checkpoint.files`. */
  readonly file: number;
  /** Absolute offset in that file, in bytes. */
  readonly offset: number;
  readonly bytes: number;
}

/** A metadata value of GGUF. 64-bit integers come as number when exact, else as bigint. Arrays of strings are lazy. */
export type MetadataValue = number | bigint | boolean | string | MetadataArray;

/** A metadata array: decoded when asked. */
export interface MetadataArray {
  /** Element type: `u8 i8 u16 i16 u32 i32 f32 bool string array u64 i64 f64`. */
  readonly type: string;
  readonly length: number;
  at(index: number): MetadataValue;
  toArray(): MetadataValue[];
}

export interface Checkpoint {
  readonly kind: 'gguf' | 'huggingface';
  /** What to call it in messages. */
  readonly name: string;
  readonly files: readonly ByteSource[];
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** GGUF key/values; empty for Hugging Face folders. */
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  /** Parsed `config.json` (Hugging Face only). */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Parsed `generation_config.json` (Hugging Face only). */
  readonly generationConfig?: Readonly<Record<string, unknown>>;
  /** Parsed `tokenizer.json` / `tokenizer_config.json`, on demand (Hugging Face only). */
  tokenizerJson?(): Promise<Record<string, unknown> | undefined>;
  tokenizerConfig?(): Promise<Record<string, unknown> | undefined>;
  /** Text of `tiktoken.model`, which Kimi-K2 has instead of tokenizer.json. */
  tiktokenModel?(): Promise<string | undefined>;
  /** Text of `chat_template.jinja` beside the config, where there is one. */
  chatTemplateFile?(): Promise<string | undefined>;
  /** The raw bytes of a tensor, or of rows [start, end) of its outermost dimension. */
  readTensor(name: string, start?: number, end?: number): Promise<Uint8Array>;
  close(): Promise<void>;
}
