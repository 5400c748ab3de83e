/**
 * safetensors writer (huggingface.co/docs/safetensors): one file, tensor after tensor, chunk by chunk. The header needs
 * every length beforehand; a producer that gives other lengths is a mistake of the caller's.
 */
import { TandemError } from '../errors.ts';
import type { SinkFolder } from './sink.ts';

export interface SafetensorsTensor {
  readonly name: string;
  /** As the file calls it: `BF16`, `F8_E4M3`, `I32` … */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** The tensor's bytes, in chunks of any size; called once. */
  data(): Iterable<Uint8Array>;
}

export interface SafetensorsOptions {
  /** After every chunk: bytes written and to write. */
  onProgress?(written: number, total: number): void;
  readonly signal?: AbortSignal;
}

/** FILE_IO where the disk refuses, ABORTED; nothing is left behind then. */
export async function writeSafetensors(
  folder: SinkFolder,
  file: string,
  tensors: readonly SafetensorsTensor[],
  { onProgress, signal }: SafetensorsOptions = {},
): Promise<void> {
  let total = 0;
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [total, total + bytes] };
    total += bytes;
  }
  const sink = await folder.create(file);
  try {
    await sink.write(headerBytes(JSON.stringify(header)));
    let written = 0;
    for (const { name, bytes, data } of tensors) {
      const end = written + bytes;
      for (const chunk of data()) {
        if (signal?.aborted)
          throw new TandemError('ABORTED', { room: 'formats', rule: `writing ${file} was cancelled` });
        written += chunk.length;
        if (written > end) break;
        await sink.write(chunk);
        onProgress?.(written, total);
      }
      if (written !== end)
        throw new TandemError('REQUEST_INVALID', {
          room: 'formats',
          rule: `"${name}" has ${bytes} bytes`,
          given: `its producer gave ${written > end ? 'more' : bytes - (end - written)}`,
        });
    }
    await sink.close();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

/** Length and JSON, padded with spaces so that the data begins at a multiple of 64. */
function headerBytes(json: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const bytes = new Uint8Array(Math.ceil((8 + text.length) / 64) * 64).fill(32);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(text, 8);
  return bytes;
}
