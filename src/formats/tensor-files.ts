/** What both containers do with tensors once their places are known: check the places, read the bytes. */
import { TandemError } from '../errors.ts';
import type { TensorInfo } from './checkpoint.ts';
import type { ByteSource, SourceFolder } from './source.ts';

/** Headers read at once: on a server each costs a round trip or two. */
const AT_ONCE = 8;

/**
 * Opens the files of a model and reads each one's header, in the order of `names`. Where one fails all are closed, and the
 * error is that of the first in order.
 */
export async function openAll<Header>(
  folder: SourceFolder,
  names: readonly string[],
  missing: (name: string) => TandemError,
  read: (source: ByteSource, index: number) => Promise<Header>,
): Promise<{ files: ByteSource[]; headers: Header[] }> {
  const files: ByteSource[] = [];
  const headers: Header[] = [];
  const errors = new Map<number, unknown>();
  let next = 0;
  const worker = async () => {
    while (next < names.length && errors.size === 0) {
      const index = next++;
      try {
        const source = await folder.open(names[index]);
        if (source === undefined) throw missing(names[index]);
        files[index] = source;
        headers[index] = await read(source, index);
      } catch (error) {
        errors.set(index, error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (errors.size === 0) return { files, headers };
  await closeAll(files);
  throw errors.get(Math.min(...errors.keys()));
}

export async function closeAll(files: readonly (ByteSource | undefined)[]): Promise<void> {
  await Promise.all(files.map((file) => file?.close()));
}

/** FORMAT_INVALID for a tensor past the end of its file and for two that overlap. */
export function checkExtents(files: readonly ByteSource[], tensors: Iterable<TensorInfo>): void {
  const byFile: TensorInfo[][] = files.map(() => []);
  for (const tensor of tensors) byFile[tensor.file].push(tensor);
  for (const [index, list] of byFile.entries()) {
    const { name: file, size } = files[index];
    for (const tensor of list) {
      if (tensor.offset + tensor.bytes <= size) continue;
      throw new TandemError('FORMAT_INVALID', {
        room: 'formats',
        rule: 'tensors lie within their file',
        given: `${file} has ${size} bytes, tensor ${tensor.name} needs bytes ${tensor.offset} to ${tensor.offset + tensor.bytes}`,
        fix: 'the file is truncated or damaged; fetch it again',
      });
    }
    list.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
    for (let i = 1; i < list.length; i++) {
      const [before, tensor] = [list[i - 1], list[i]];
      if (before.offset + before.bytes <= tensor.offset) continue;
      throw new TandemError('FORMAT_INVALID', {
        room: 'formats',
        rule: 'tensors do not overlap',
        given: `${file}: ${before.name} ends at byte ${before.offset + before.bytes}, ${tensor.name} starts at ${tensor.offset}`,
        fix: 'the file is damaged; fetch it again',
      });
    }
  }
}

/** `Checkpoint.readTensor` over opened files. */
export function tensorReader(
  checkpoint: string,
  files: readonly ByteSource[],
  tensors: ReadonlyMap<string, TensorInfo>,
): (name: string, start?: number, end?: number) => Promise<Uint8Array> {
  return async (name, start, end) => {
    const tensor = tensors.get(name);
    if (tensor === undefined) {
      throw new TandemError('MODEL_INVALID', { room: 'formats', rule: `${checkpoint} has no tensor "${name}"` });
    }
    const file = files[tensor.file];
    if (start === undefined && end === undefined) return file.read(tensor.offset, tensor.offset + tensor.bytes);
    const rows = tensor.shape[0] ?? 1;
    const first = start ?? 0;
    const last = end ?? rows;
    if (!(Number.isInteger(first) && Number.isInteger(last) && 0 <= first && first <= last && last <= rows)) {
      throw new TandemError('REQUEST_INVALID', {
        room: 'formats',
        rule: `${name} has rows 0 to ${rows} in its outermost dimension`,
        given: `rows ${first} to ${last} were asked for`,
      });
    }
    const size = rows === 0 ? 0 : tensor.bytes / rows;
    if (!Number.isInteger(size)) {
      throw new TandemError('REQUEST_INVALID', {
        room: 'formats',
        rule: `a row of ${name} (${tensor.format}, shape ${tensor.shape.join(' × ')}) is no whole number of bytes`,
        fix: 'read the tensor whole',
      });
    }
    return file.read(tensor.offset + first * size, tensor.offset + last * size);
  };
}
