/**
 * Header of one safetensors file (huggingface.co/docs/safetensors):
 *
 *     u64 n │ n bytes of JSON: { name: { dtype, shape, data_offsets: [begin, end) } } │ data
 *
 * Offsets count from the end of the header. Refuses what contradicts itself with FORMAT_INVALID.
 */
import { TandemError } from '../errors.ts';
import { refetchHint } from './bytes.ts';
import type { TensorInfo } from './checkpoint.ts';
import { duplicateKey } from './json-keys.ts';
import type { ByteSource } from './source.ts';

/** The format's own limit, which also keeps a corrupt length from being allocated. */
const HEADER_LIMIT = 100_000_000;

/** dtype in the file → our name and its bits (some types are half a byte). */
const DTYPES: Readonly<Record<string, readonly [format: string, bits: number]>> = {
  F64: ['f64', 64],
  F32: ['f32', 32],
  F16: ['f16', 16],
  BF16: ['bf16', 16],
  F8_E4M3: ['f8_e4m3', 8],
  F8_E5M2: ['f8_e5m2', 8],
  F8_E8M0: ['f8_e8m0', 8],
  F4: ['f4_e2m1', 4],
  I64: ['i64', 64],
  I32: ['i32', 32],
  I16: ['i16', 16],
  I8: ['i8', 8],
  U64: ['u64', 64],
  U32: ['u32', 32],
  U16: ['u16', 16],
  U8: ['u8', 8],
  BOOL: ['bool', 8],
};

/** The tensors of a file; `index` becomes `TensorInfo.file`. Places in the file are checked by `checkExtents`. */
export async function readSafetensors(source: ByteSource, index: number): Promise<TensorInfo[]> {
  const text = await readHeaderText(source);
  const header = parseHeader(source, text);
  const dataStart = 8 + text.bytes;
  const tensors: TensorInfo[] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name !== '__metadata__') tensors.push(tensorInfo(source, name, entry, index, dataStart));
  }
  return tensors;
}

async function readHeaderText(source: ByteSource): Promise<{ text: string; bytes: number }> {
  if (source.size < 8) {
    throw invalid(source, 'a safetensors file starts with the length of its header', `it has ${source.size} bytes`);
  }
  const first = await source.read(0, 8);
  const view = new DataView(first.buffer, first.byteOffset, 8);
  const bytes = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (bytes > HEADER_LIMIT || 8 + bytes > source.size) {
    throw invalid(
      source,
      `a safetensors header lies within the file and has at most ${HEADER_LIMIT} bytes`,
      `it claims ${bytes} bytes in a file of ${source.size}`,
      refetchHint(first),
    );
  }
  return { text: new TextDecoder('utf-8', { ignoreBOM: true }).decode(await source.read(8, 8 + bytes)), bytes };
}

function parseHeader(source: ByteSource, { text }: { text: string }): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    throw invalid(source, 'a safetensors header is JSON', (cause as Error).message);
  }
  if (!isRecord(header)) throw invalid(source, 'a safetensors header is a JSON object', text.slice(0, 40));
  const twice = duplicateKey(text);
  if (twice !== undefined) throw invalid(source, 'keys of a safetensors header are unique', `"${twice}" comes twice`);
  return header;
}

function tensorInfo(source: ByteSource, name: string, entry: unknown, file: number, dataStart: number): TensorInfo {
  const { dtype, shape, data_offsets: offsets } = isRecord(entry) ? entry : {};
  if (typeof dtype !== 'string' || !isLengths(shape) || !isLengths(offsets) || offsets.length !== 2) {
    throw invalid(
      source,
      'a tensor has a dtype, a shape and data_offsets of two whole numbers',
      `"${name}" is ${(JSON.stringify(entry) ?? 'nothing').slice(0, 120)}`,
    );
  }
  const type = Object.hasOwn(DTYPES, dtype) ? DTYPES[dtype] : undefined;
  if (type === undefined) {
    throw new TandemError('FORMAT_UNSUPPORTED', {
      room: 'formats',
      rule: `known safetensors types are ${Object.keys(DTYPES).join(', ')}`,
      given: `${source.name}: tensor "${name}" has dtype ${dtype}`,
      fix: 'convert the checkpoint to one of them',
    });
  }
  const [begin, end] = offsets;
  const bytes = (shape.reduce((product, length) => product * length, 1) * type[1]) / 8;
  if (end - begin !== bytes) {
    throw invalid(
      source,
      'data_offsets of a tensor span its bytes',
      `"${name}" is ${dtype} [${shape.join(', ')}], ${bytes} bytes, with offsets ${begin} to ${end}`,
    );
  }
  return { name, shape, format: type[0], file, offset: dataStart + begin, bytes };
}

function isLengths(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((length) => Number.isSafeInteger(length) && length >= 0);
}

/** True for a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(
  source: ByteSource,
  rule: string,
  given: string,
  fix = 'the file is truncated or damaged; fetch it again',
): TandemError {
  return new TandemError('FORMAT_INVALID', { room: 'formats', rule, given: `${source.name}: ${given}`, fix });
}
