/** Where a command writes a file: it appears whole or not at all. Devices and pipes are written to as they are. */
import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { fileSinkFolder } from '../formats/file-sink.ts';
import { fileError } from '../formats/file-source.ts';
import type { ByteSink } from '../formats/sink.ts';

/** Ready to write, so that a place that cannot be written is refused before the work. FILE_NOT_FOUND, FILE_IO. */
export async function openOutput(path: string): Promise<ByteSink> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw fileError('write', resolve(path), { code: 'EISDIR' });
  if (found && !found.isFile()) return direct(path);
  const target = await realpath(path).catch(() => resolve(path)); // of a link the file behind it is replaced
  return fileSinkFolder(dirname(target)).create(basename(target));
}

async function direct(path: string): Promise<ByteSink> {
  const failed = (cause: unknown) => {
    throw fileError('write', path, cause);
  };
  const handle: FileHandle = await open(path, 'w').catch(failed);
  return {
    name: path,
    write: (bytes) => handle.writeFile(bytes).catch(failed),
    close: () => handle.close().catch(failed),
    abort: () => handle.close().catch(() => {}),
  };
}
