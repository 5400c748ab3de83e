/** Bytes: guards every ByteSource shares (ranges and allocations are checked before memory is touched), and text. */
import { TandemError } from '../errors.ts';

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Throws FILE_IO unless [start, end) lies in the source. */
export function checkRange(source: { name: string; size: number }, start: number, end: number): void {
  const whole = Number.isSafeInteger(start) && Number.isSafeInteger(end);
  if (whole && 0 <= start && start <= end && end <= source.size) return;
  throw new TandemError('FILE_IO', {
    room: 'formats',
    rule: `${source.name} has ${source.size} bytes`,
    given: `bytes ${start} to ${end} were asked for`,
  });
}

/** A new buffer, or OUT_OF_MEMORY. */
export function allocate(bytes: number, what: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new TandemError('OUT_OF_MEMORY', { room: 'formats', rule: `no memory for ${bytes} bytes of ${what}`, cause });
  }
}

/** Bytes of UTF-8 → text. Most tokens are a few ASCII characters, which need no decoder. Broken UTF-8 becomes U+FFFD. */
export function decodeText(bytes: Uint8Array, start: number, end: number): string {
  if (end - start > 32) return utf8.decode(bytes.subarray(start, end));
  let text = '';
  for (let i = start; i < end; i++) {
    const byte = bytes[i];
    if (byte >= 0x80) return utf8.decode(bytes.subarray(start, end));
    text += String.fromCharCode(byte);
  }
  return text;
}

/**
 * What to do about a file that starts with `head` and is not what it should be. A clone without Git LFS leaves small
 * text files in place of the weights, which is worth saying.
 */
export function refetchHint(head: Uint8Array): string {
  const isPointer = decodeText(head, 0, Math.min(8, head.length)) === 'version ';
  return isPointer
    ? 'it looks like a Git LFS pointer, not the model; run `git lfs pull` in its folder'
    : 'the file is damaged or of another kind; fetch it again';
}
