/** One token per byte: ids 0–255 are bytes, 256 ends, 257 begins. Enough to test what is built on a Tokenizer. */
import type { Tokenizer } from '../../src/text/tokenizer.ts';

export const END = 256;
const BEGIN = 257;

export const byteTokenizer: Tokenizer = {
  vocabSize: 258,
  bosId: BEGIN,
  eosIds: [END],
  bosToken: '<begin>',
  eosToken: '<end>',
  encode: (text, { addSpecial = false } = {}) => [...(addSpecial ? [BEGIN] : []), ...new TextEncoder().encode(text)],
  decode: (ids) => new TextDecoder().decode(Uint8Array.from([...ids].filter((id) => id < 256))),
  tokenBytes: (id) => (id < 256 ? Uint8Array.of(id) : new TextEncoder().encode(id === END ? '<end>' : '<begin>')),
  guard: (text) => text,
  isSpecial: (id) => id >= 256,
  tokenId: () => undefined,
};
