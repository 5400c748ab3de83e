/** Bytes of a safetensors file, for tests. */

/** `header` as JSON (a string goes in as it is), then `data` zero bytes; `length` replaces the true header length. */
export function safetensors(header: unknown, data: number, length?: number | bigint): Uint8Array {
  const text = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  bytes.set(text, 8);
  return bytes;
}
