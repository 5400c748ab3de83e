/**
 * GGUF writer, version 3. Tensor bytes come from producers chunk by chunk, so the memory it takes does not grow with the
 * file. A set of files is written where `shardBytes` asks for it. Source of the format: see `gguf.ts`.
 */
import { TandemError } from '../errors.ts';
import { type GgufValue, HeaderBuilder } from './gguf-encode.ts';
import {
  DEFAULT_ALIGNMENT,
  GGUF_MAGIC,
  ggmlTypeByFormat,
  KNOWN_TYPES,
  MAX_DIMENSIONS,
  shardName,
} from './gguf-types.ts';
import type { ByteSink, SinkFolder } from './sink.ts';

export interface GgufTensor {
  readonly name: string;
  /** Row-major, outermost dimension first. */
  readonly shape: readonly number[];
  /** Any format with a GGUF type, also an integer type. */
  readonly format: string;
  /** The tensor's bytes, in chunks of any size; called once. */
  data(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export interface GgufContent {
  /** `general.alignment` (u32, default 32) sets the alignment. Keys `split.*` belong to the writer and are replaced. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly GgufTensor[];
  /** Most bytes of tensors in a file; a set `NAME-00001-of-0000N.gguf` is written even where one file suffices. */
  readonly shardBytes?: number;
  /** After every chunk: tensor bytes written and to write. */
  onProgress?(written: number, total: number): void;
  readonly signal?: AbortSignal;
}

interface Placed {
  readonly tensor: GgufTensor;
  readonly typeId: number;
  readonly bytes: number;
}

/**
 * Writes `file` (or its set) into `folder` and returns the names of the files written. REQUEST_INVALID for content that
 * breaks the rules of the format, FILE_IO where the disk refuses, ABORTED; nothing is left behind then.
 */
export async function writeGguf(folder: SinkFolder, file: string, content: GgufContent): Promise<string[]> {
  const alignment = alignmentOf(content.metadata);
  const placed = content.tensors.map(place);
  checkNames(content.tensors);
  const shards = content.shardBytes === undefined ? [placed] : split(placed, content.shardBytes);
  const stem = file.replace(/\.gguf$/, '');
  const names =
    content.shardBytes === undefined ? [file] : shards.map((_, index) => shardName(stem, index, shards.length));
  const headers = shards.map((shard, index) => {
    const place = content.shardBytes === undefined ? undefined : { index, count: shards.length, total: placed.length };
    return encodeHeader(content.metadata, shard, alignment, place);
  });
  const total = placed.reduce((sum, { bytes }) => sum + bytes, 0);
  let written = 0;
  const sinks: ByteSink[] = [];
  try {
    for (const [index, shard] of shards.entries()) {
      const sink = await folder.create(names[index]);
      sinks.push(sink);
      await sink.write(headers[index]);
      for (const { tensor, bytes } of shard) {
        await writeTensor(sink, tensor, bytes, alignment, (chunk) => {
          if (content.signal?.aborted) {
            throw new TandemError('ABORTED', { room: 'formats', rule: `writing ${file} was cancelled` });
          }
          written += chunk;
          content.onProgress?.(written, total);
        });
      }
    }
    for (const sink of sinks) await sink.close();
  } catch (error) {
    await Promise.all(sinks.map((sink) => sink.abort()));
    throw error;
  }
  return names;
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>): number {
  const given = metadata.get('general.alignment');
  if (given === undefined) return DEFAULT_ALIGNMENT;
  const { type, value } = given;
  if (type === 'u32' && typeof value === 'number' && value >= 1 && Number.isInteger(Math.log2(value))) return value;
  throw new TandemError('REQUEST_INVALID', {
    room: 'formats',
    rule: 'general.alignment is a power of two of type u32',
    given: `${type} ${String(value)}`,
  });
}

function place(tensor: GgufTensor): Placed {
  const { name, shape, format } = tensor;
  const type = ggmlTypeByFormat(format);
  if (type === undefined) {
    throw new TandemError('FORMAT_UNSUPPORTED', {
      room: 'formats',
      rule: `tensor types of GGUF are ${KNOWN_TYPES}`,
      given: `"${name}" has format ${format}`,
      fix: 'convert it to one of them',
    });
  }
  const columns = shape.at(-1) ?? 1;
  const whole = shape.every((length) => Number.isSafeInteger(length) && length >= 1);
  if (!whole || shape.length > MAX_DIMENSIONS || columns % type.blockSize !== 0) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'formats',
      rule: `a tensor has at most ${MAX_DIMENSIONS} positive dimensions, its rows of ${format} are multiples of ${type.blockSize}`,
      given: `"${name}" is [${shape.join(', ')}]`,
    });
  }
  const elements = shape.reduce((product, length) => product * length, 1);
  return { tensor, typeId: type.id, bytes: (elements / type.blockSize) * type.blockBytes };
}

function checkNames(tensors: readonly GgufTensor[]): void {
  const names = new Set<string>();
  for (const { name } of tensors) {
    if (names.has(name)) {
      throw new TandemError('REQUEST_INVALID', {
        room: 'formats',
        rule: 'tensor names are unique',
        given: `"${name}"`,
      });
    }
    names.add(name);
  }
}

/** Runs of tensors of at most `limit` bytes; a larger tensor gets a file of its own. */
function split(placed: readonly Placed[], limit: number): Placed[][] {
  const shards: Placed[][] = [[]];
  let size = 0;
  for (const tensor of placed) {
    if (size > 0 && size + tensor.bytes > limit) {
      shards.push([]);
      size = 0;
    }
    shards[shards.length - 1].push(tensor);
    size += tensor.bytes;
  }
  return shards;
}

function encodeHeader(
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: readonly Placed[],
  alignment: number,
  shard?: { index: number; count: number; total: number },
): Uint8Array {
  const entries = new Map<string, GgufValue>();
  for (const [key, value] of metadata) {
    // All of it goes into the first file; the others need the alignment.
    const here = shard === undefined || shard.index === 0 || key === 'general.alignment';
    if (here && !key.startsWith('split.')) entries.set(key, value);
  }
  if (shard !== undefined) {
    entries.set('split.no', { type: 'u16', value: shard.index });
    entries.set('split.count', { type: 'u16', value: shard.count });
    entries.set('split.tensors.count', { type: 'i32', value: shard.total });
  }
  const header = new HeaderBuilder();
  header.u32(GGUF_MAGIC);
  header.u32(3);
  header.u64(tensors.length);
  header.u64(entries.size);
  for (const [key, value] of entries) {
    header.text(key);
    header.typedValue(key, value);
  }
  let offset = 0;
  for (const { tensor, typeId, bytes } of tensors) {
    header.text(tensor.name);
    header.u32(tensor.shape.length);
    for (const length of [...tensor.shape].reverse()) header.u64(length);
    header.u32(typeId);
    header.u64(offset);
    offset = align(offset + bytes, alignment);
  }
  header.zeros(align(header.length, alignment) - header.length);
  return header.bytes();
}

async function writeTensor(
  sink: ByteSink,
  tensor: GgufTensor,
  bytes: number,
  alignment: number,
  onChunk: (bytes: number) => void,
): Promise<void> {
  let done = 0;
  for await (const chunk of tensor.data()) {
    done += chunk.length;
    if (done > bytes) break;
    await sink.write(chunk);
    onChunk(chunk.length);
  }
  if (done !== bytes) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'formats',
      rule: `"${tensor.name}" (${tensor.format}, [${tensor.shape.join(', ')}]) has ${bytes} bytes`,
      given: `its producer gave ${done > bytes ? 'more' : done}`,
    });
  }
  await sink.write(new Uint8Array(align(bytes, alignment) - bytes));
}

function align(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}
