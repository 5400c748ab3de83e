/** Feeds output parsers in tests: in parts, and byte by byte as a byte-level tokenizer could. Neighbouring events are joined. */
import { Detokenizer } from '../../src/text/detokenizer.ts';
import { joinEvents, type OutputEvent } from '../../src/text/parsers/events.ts';
import { type ParserChoice, parserFor } from '../../src/text/parsers/index.ts';

export function feed(parts: Iterable<string>, choice: ParserChoice): OutputEvent[] {
  const parser = parserFor(choice);
  const events: OutputEvent[] = [];
  for (const part of parts) events.push(...parser.push(part));
  events.push(...parser.finish());
  return joinEvents(events);
}

export function feedBytes(text: string, choice: ParserChoice): OutputEvent[] {
  const detokenizer = new Detokenizer({ tokenBytes: (id) => Uint8Array.of(id) });
  const parts = Array.from(new TextEncoder().encode(text), (byte) => detokenizer.push(byte));
  return feed([...parts, detokenizer.flush()], choice);
}
