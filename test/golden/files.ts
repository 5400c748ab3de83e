/** Reads golden files. */
import { readFileSync } from 'node:fs';

/** Little-endian f32 values of a file. */
export function floats(path: string): Float32Array {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}
