/**
 * GGUF reader: one file or a split set, headers only. Versions 2 and 3, little-endian.
 *
 *     magic version n_tensors n_kv │ n_kv × (key type value) │ n_tensors × (name dims type offset) │ pad │ tensor data
 *
 * Source: github.com/ggml-org/ggml, docs/gguf.md. Shapes come out row-major (GGUF lists the innermost dimension first).
 * A file is refused at the first broken rule, with FORMAT_INVALID, or FORMAT_UNSUPPORTED where it is valid but unknown.
 */
import { TandemError } from '../errors.ts';
import { refetchHint } from './bytes.ts';
import type { Checkpoint, MetadataValue, TensorInfo } from './checkpoint.ts';
import { readType, readValue } from './gguf-metadata.ts';
import {
  DEFAULT_ALIGNMENT,
  GGUF_MAGIC,
  GGUF_VERSIONS,
  ggmlTypeById,
  KNOWN_TYPES,
  MAX_DIMENSIONS,
  MAX_ENTRIES,
  parseShardName,
  shardName,
  type ValueType,
} from './gguf-types.ts';
import { HeaderCursor } from './header-cursor.ts';
import type { ByteSource, SourceFolder } from './source.ts';
import { checkExtents, closeAll, openAll, tensorReader } from './tensor-files.ts';

export interface GgufCheckpoint extends Checkpoint {
  readonly kind: 'gguf';
  readonly version: number;
  readonly alignment: number;
  /** Types of the metadata values as stored (numbers alone do not tell u32 from i64); the writer needs them. */
  readonly metadataTypes: ReadonlyMap<string, ValueType>;
}

/** The header of one file. */
interface Header {
  readonly version: number;
  readonly alignment: number;
  readonly metadata: Map<string, MetadataValue>;
  readonly types: Map<string, ValueType>;
  readonly tensors: TensorInfo[];
}

/**
 * Opens `file` of `folder`. Of a split set any shard may be named, the set is opened from its first; a missing shard is
 * an error that names it. FILE_NOT_FOUND where there is no such file.
 */
export async function openGguf(folder: SourceFolder, file: string): Promise<GgufCheckpoint> {
  const shard = parseShardName(file);
  const names =
    shard === undefined
      ? [file]
      : Array.from({ length: shard.count }, (_, index) => shardName(shard.stem, index, shard.count));
  const { files, headers } = await openAll(
    folder,
    names,
    (name) => missing(folder, name, names.length),
    async (source, index) => {
      const header = await readHeader(source, index);
      checkSplit(header, names[index], index, names.length);
      return header;
    },
  );
  try {
    const tensors = mergeTensors(headers, files);
    checkSplitTotal(headers[0], tensors.size, names[0]);
    checkExtents(files, tensors.values());
    return {
      kind: 'gguf',
      name: `${folder.name}/${names[0]}`,
      version: headers[0].version,
      alignment: headers[0].alignment,
      files,
      tensors,
      metadata: headers[0].metadata,
      metadataTypes: headers[0].types,
      readTensor: tensorReader(names[0], files, tensors),
      close: () => closeAll(files),
    };
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

function missing(folder: SourceFolder, name: string, count: number): TandemError {
  return new TandemError('FILE_NOT_FOUND', {
    room: 'formats',
    rule: count > 1 ? `a split model needs all its ${count} files` : 'a model file exists',
    given: `there is no ${name} in ${folder.name}`,
    fix: count > 1 ? 'fetch the missing file into the same folder' : 'check the path',
  });
}

/** Reads and checks one header; `index` becomes `TensorInfo.file`. */
async function readHeader(source: ByteSource, index: number): Promise<Header> {
  const cursor = new HeaderCursor(source);
  const { version, tensorCount, valueCount } = await cursor.parse(() => readPreamble(cursor));

  const metadata = new Map<string, MetadataValue>();
  const types = new Map<string, ValueType>();
  for (let i = 0; i < valueCount; i++) {
    await cursor.parse(() => {
      const key = cursor.text(`metadata key ${i}`);
      if (metadata.has(key)) throw cursor.invalid('metadata keys are unique', `"${key}" comes twice`);
      const type = readType(cursor, `metadata "${key}"`);
      const value = readValue(cursor, type, `metadata "${key}"`);
      metadata.set(key, value);
      types.set(key, type);
    });
  }

  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (typeof alignment !== 'number' || alignment < 1 || !Number.isInteger(Math.log2(alignment))) {
    throw cursor.invalid('general.alignment is a power of two', `it is ${String(alignment)}`);
  }

  const tensors = new Map<string, TensorInfo>();
  for (let i = 0; i < tensorCount; i++) {
    const tensor = await cursor.parse(() => readTensorInfo(cursor, i, index, alignment));
    if (tensors.has(tensor.name)) throw cursor.invalid('tensor names are unique', `"${tensor.name}" comes twice`);
    tensors.set(tensor.name, tensor);
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  return {
    version,
    alignment,
    metadata,
    types,
    tensors: [...tensors.values()].map((tensor) => ({ ...tensor, offset: tensor.offset + dataStart })),
  };
}

function readPreamble(cursor: HeaderCursor): { version: number; tensorCount: number; valueCount: number } {
  const magic = cursor.u32('the magic');
  if (magic !== GGUF_MAGIC) {
    const found = [0, 8, 16, 24].map((shift) => ((magic >>> shift) & 255).toString(16).padStart(2, '0')).join(' ');
    const fix = refetchHint(cursor.copy(0, 8));
    throw cursor.invalid('a GGUF file starts with the bytes 47 47 55 46', `it starts with ${found}`, fix);
  }
  const version = cursor.u32('the version');
  if (!GGUF_VERSIONS.includes(version)) {
    const bigEndian = (version & 0xffff) === 0;
    throw new TandemError('FORMAT_UNSUPPORTED', {
      room: 'formats',
      rule: `Tandem reads GGUF versions ${GGUF_VERSIONS.join(' and ')}, little-endian`,
      given: bigEndian ? `${cursor.source.name} is big-endian` : `${cursor.source.name} has version ${version}`,
      fix: bigEndian ? 'fetch the little-endian file' : 'convert the model with a current tool',
    });
  }
  // A tensor takes at least an empty name, a rank, a type and an offset; a value a key, a type and a byte.
  const tensorCount = cursor.count(24, 'the tensor list');
  const valueCount = cursor.count(13, 'the metadata');
  if (tensorCount > MAX_ENTRIES || valueCount > MAX_ENTRIES) {
    throw cursor.invalid(
      `a GGUF header has at most ${MAX_ENTRIES} tensors and as many metadata keys`,
      `it claims ${tensorCount} tensors and ${valueCount} keys`,
    );
  }
  return { version, tensorCount, valueCount };
}

/** One tensor; `offset` is still relative to the data. */
function readTensorInfo(cursor: HeaderCursor, i: number, file: number, alignment: number): TensorInfo {
  const name = cursor.text(`the name of tensor ${i}`);
  const what = `tensor "${name}"`;
  const rank = cursor.u32(what);
  if (rank > MAX_DIMENSIONS) {
    throw cursor.invalid(`a tensor has at most ${MAX_DIMENSIONS} dimensions`, `${what} has ${rank}`);
  }
  const shape: number[] = [];
  for (let d = 0; d < rank; d++) shape.unshift(cursor.u64(what));
  const id = cursor.u32(what);
  const offset = cursor.u64(what);
  const type = ggmlTypeById(id);
  if (type === undefined) {
    throw new TandemError('FORMAT_UNSUPPORTED', {
      room: 'formats',
      rule: `known tensor types are ${KNOWN_TYPES}`,
      given: `${cursor.source.name}: ${what} has type ${id}`,
      fix: 'use a file quantized to one of them',
    });
  }
  const columns = shape[rank - 1] ?? 1;
  if (columns % type.blockSize !== 0) {
    throw cursor.invalid(`rows of ${type.format} are multiples of ${type.blockSize}`, `${what} has rows of ${columns}`);
  }
  const elements = shape.reduce((product, length) => product * length, 1);
  const bytes = (elements / type.blockSize) * type.blockBytes;
  if (shape.includes(0)) {
    throw cursor.invalid('dimensions of a tensor are at least 1', `${what} is ${shape.join(' × ')}`);
  }
  if (bytes > cursor.source.size) {
    throw cursor.invalid(
      'tensors lie within their file',
      `${what} is ${shape.join(' × ')} ${type.format}, ${bytes} bytes, the file has ${cursor.source.size}`,
      'the file is truncated or damaged; fetch it again',
    );
  }
  if (offset % alignment !== 0) {
    throw cursor.invalid(`tensors start at multiples of the alignment ${alignment}`, `${what} has offset ${offset}`);
  }
  return { name, shape, format: type.format, file, offset, bytes };
}

/** The split keys of one header against its place in the set. */
function checkSplit({ metadata }: Header, name: string, index: number, count: number): void {
  const given = metadata.get('split.count');
  const number = metadata.get('split.no');
  if (given === undefined && count === 1) return;
  if (count === 1 && parseShardName(name) === undefined && given !== undefined && given !== 1 && given !== 0) {
    throw new TandemError('FORMAT_INVALID', {
      room: 'formats',
      rule: `a split model is found by the names of its files, NAME-00001-of-${String(given).padStart(5, '0')}.gguf and so on`,
      given: `${name} says that it is one of ${String(given)} files`,
      fix: 'give the files their original names back',
    });
  }
  if ((given === count || (given === 0 && count === 1)) && (number ?? 0) === index) return;
  throw new TandemError('FORMAT_INVALID', {
    room: 'formats',
    rule: 'the file names of a split model agree with split.no and split.count',
    given: `${name} says split.no = ${String(number)}, split.count = ${String(given)}, expected ${index} and ${count}`,
    fix: 'fetch the files again under their original names',
  });
}

function checkSplitTotal({ metadata }: Header, total: number, name: string): void {
  const expected = metadata.get('split.tensors.count');
  if (expected === undefined || expected === total) return;
  throw new TandemError('FORMAT_INVALID', {
    room: 'formats',
    rule: 'the files of a split model hold split.tensors.count tensors',
    given: `${name} says ${String(expected)}, there are ${total}`,
    fix: 'the files do not belong together; fetch them again',
  });
}

function mergeTensors(headers: readonly Header[], files: readonly ByteSource[]): Map<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>();
  for (const header of headers) {
    for (const tensor of header.tensors) {
      const other = tensors.get(tensor.name);
      if (other !== undefined) {
        throw new TandemError('FORMAT_INVALID', {
          room: 'formats',
          rule: 'tensor names are unique',
          given: `"${tensor.name}" is in ${files[other.file].name} and in ${files[tensor.file].name}`,
          fix: 'the file is damaged; fetch it again',
        });
      }
      tensors.set(tensor.name, tensor);
    }
  }
  return tensors;
}
