/** Weights that a benchmark runs once: in a temporary file that `close` (or Ctrl-C) removes. */
import { rmSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FormatName, rowBytes } from '../../formats/dtype.ts';
import { fileError, openFile } from '../../formats/file-source.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import { SCALE_BYTES } from '../../formats/quants/scales.ts';
import type { ByteSource } from '../../formats/source.ts';

/** Bytes that begin at an offset of the file. */
export interface Stretch {
  readonly offset: number;
  readonly chunks: Iterable<Uint8Array>;
}

/** FILE_IO where the temporary folder has no room. `prefix`: of the folder's name. */
export async function temporaryWeights(
  prefix: string,
  stretches: Iterable<Stretch>,
): Promise<{ readonly source: ByteSource; close(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  const path = join(folder, 'weights.bin');
  const interrupted = () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  };
  process.once('SIGINT', interrupted);
  const remove = () => {
    process.off('SIGINT', interrupted);
    return rm(folder, { recursive: true, force: true });
  };
  try {
    await write(path, stretches);
    const source = await openFile(path);
    return { source, close: () => source.close().then(remove) };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function write(path: string, stretches: Iterable<Stretch>): Promise<void> {
  const failed = (cause: unknown): never => {
    throw fileError('write', path, cause);
  };
  const handle = await open(path, 'wx').catch(failed);
  try {
    for (const { offset, chunks } of stretches) {
      let at = offset;
      for (const chunk of chunks) {
        await handle.write(chunk, 0, chunk.length, at).catch(failed);
        at += chunk.length;
      }
    }
  } finally {
    await handle.close();
  }
}

/** Where the next tensor may begin. */
export function aligned(offset: number): number {
  return Math.ceil(offset / 64) * 64;
}

/** Bytes of a tensor's elements, without scales. */
export function matrixBytes(shape: readonly number[], format: FormatName): number {
  return rowsOf(shape) * rowBytes(quantFormat(format), shape[shape.length - 1]);
}

/** Of the scales that lie in a tensor of their own; 0 where the format has none. */
export function scaleBytes(shape: readonly number[], format: FormatName): number {
  const { scaleBlock } = quantFormat(format);
  if (scaleBlock === undefined) return 0;
  return scaleShape(shape, format).reduce((product, length) => product * length, SCALE_BYTES[scaleBlock.type]);
}

/** Of a format that has such scales. */
export function scaleShape(shape: readonly number[], format: FormatName): number[] {
  const { rows, columns } = quantFormat(format).scaleBlock!;
  const [n, k] = shape.slice(-2);
  return [...shape.slice(0, -2), Math.ceil(n / rows), Math.ceil(k / columns)];
}

function rowsOf(shape: readonly number[]): number {
  return shape.slice(0, -1).reduce((product, length) => product * length, 1);
}
