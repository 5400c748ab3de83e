/** A checkpoint of tensors in memory: one file, each tensor on a boundary of 64 bytes. */
import type { Checkpoint, TensorInfo } from '../../src/formats/checkpoint.ts';
import { memorySource } from '../../src/formats/memory-source.ts';

export interface MemoryTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: string;
  readonly bytes: Uint8Array;
}

export function memoryCheckpoint(list: readonly MemoryTensor[]): Checkpoint {
  const tensors = new Map<string, TensorInfo>();
  let end = 0;
  for (const { name, shape, format, bytes } of list) {
    tensors.set(name, { name, shape, format, file: 0, offset: end, bytes: bytes.length });
    end = Math.ceil((end + bytes.length) / 64) * 64;
  }
  const file = new Uint8Array(Math.max(end, 64));
  for (const { name, bytes } of list) file.set(bytes, tensors.get(name)!.offset);
  return {
    kind: 'gguf',
    name: 'memory',
    files: [memorySource(file)],
    tensors,
    metadata: new Map(),
    async readTensor(name, start, stop) {
      const { offset, bytes, shape } = tensors.get(name)!;
      const row = bytes / shape[0];
      return file.slice(offset + (start ?? 0) * row, offset + (stop ?? shape[0]) * row);
    },
    async close() {},
  };
}
