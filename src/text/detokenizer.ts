/**
 * Token ids to text while they are generated: `push` returns what is now certain and never splits a code point.
 *
 * Special tokens come out as their text (parsers need the tool markers); whoever streams to people leaves out the
 * tokens that end a generation before pushing.
 */
import type { Tokenizer } from './tokenizer.ts';

export class Detokenizer {
  private readonly tokenizer: Pick<Tokenizer, 'tokenBytes'>;
  // `ignoreBOM` keeps a U+FEFF at the start of an answer, which is text here.
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(tokenizer: Pick<Tokenizer, 'tokenBytes'>) {
    this.tokenizer = tokenizer;
  }

  /** Text completed by this token: '' while a code point is incomplete, U+FFFD for bytes that cannot become one. */
  push(id: number): string {
    return this.decoder.decode(this.tokenizer.tokenBytes(id), { stream: true });
  }

  /** What an incomplete code point at the end leaves (U+FFFD, or ''). The detokenizer can be used again after it. */
  flush(): string {
    return this.decoder.decode();
  }
}
