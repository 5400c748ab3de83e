/** What a model's output is made of, as it streams: reasoning, text and tool calls. */

export type OutputEvent =
  | { readonly type: 'reasoning' | 'text'; readonly text: string }
  | { readonly type: 'tool-call-start'; readonly index: number; readonly id: string; readonly name: string }
  /** A piece of the arguments as the model wrote them; all pieces of a call joined are JSON if the model wrote JSON. */
  | { readonly type: 'tool-call-arguments'; readonly index: number; readonly fragment: string }
  | { readonly type: 'tool-call-end'; readonly index: number };

/**
 * Takes decoded text, special tokens other than the end included as their text. However the text is cut into pushes,
 * the events say the same (`joinEvents`). A parser never throws and loses nothing but markers and the white space
 * around them: what is no call comes out as text, a call that breaks off comes out finished with what it had.
 */
export interface OutputParser {
  push(text: string): OutputEvent[];
  /** The end of the output: gives what was held back and ends an open call. */
  finish(): OutputEvent[];
}

/** A parser that does one step after the other on what it was given and has not used. */
export abstract class SteppingParser implements OutputParser {
  protected pending = '';

  push(text: string): OutputEvent[] {
    this.pending += text;
    const events: OutputEvent[] = [];
    while (this.step(events));
    return events;
  }

  abstract finish(): OutputEvent[];

  /** Does one step on the pending text; false when it needs more. */
  protected abstract step(events: OutputEvent[]): boolean;
}

/** An event of this text; none for no text. */
export function textEvents(text: string): OutputEvent[] {
  return text === '' ? [] : [{ type: 'text', text }];
}

/** Joins neighbouring events of one kind. */
export function joinEvents(events: Iterable<OutputEvent>): OutputEvent[] {
  const joined: OutputEvent[] = [];
  for (const event of events) {
    const last = joined.at(-1);
    if ((event.type === 'text' || event.type === 'reasoning') && last?.type === event.type) {
      joined[joined.length - 1] = { type: event.type, text: last.text + event.text };
    } else if (event.type === 'tool-call-arguments' && last?.type === event.type && last.index === event.index) {
      joined[joined.length - 1] = { ...event, fragment: last.fragment + event.fragment };
    } else joined.push(event);
  }
  return joined;
}

/** An id for a tool call that no other has. */
export function randomCallId(): string {
  return `call_${globalThis.crypto.randomUUID().replaceAll('-', '').slice(0, 24)}`;
}
