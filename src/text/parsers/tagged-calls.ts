/**
 * Tool calls between markers: `begin` … `end`, one call each, any number of them. What is between is a syntax's own
 * (`CallBody`). White space around calls belongs to nobody; what is no call comes out as the text it was.
 */
import { findMarker, heldFrom } from '../markers.ts';
import { type OutputEvent, type OutputParser, textEvents } from './events.ts';

/** Reads one call. */
export interface CallBody {
  push(text: string): OutputEvent[];
  /** The end of the call, or of the output. Gives text where it never became a call. */
  end(): OutputEvent[];
}

export interface TaggedSyntax {
  readonly begin: readonly string[];
  readonly end: string;
  /** Markers around all calls, which say nothing. */
  readonly around?: readonly string[];
  /** Reads the call of that index, that began with `marker`. Undefined: the index was not used. */
  body(index: number, marker: string): CallBody;
}

export class TaggedCallParser implements OutputParser {
  private readonly syntax: TaggedSyntax;
  private readonly outer: readonly string[];
  private pending = '';
  /** White space that is text only if text follows. */
  private gap = '';
  private body: CallBody | undefined;
  private calls = 0;
  /** Nothing but white space came since the last marker. */
  private behindCall = false;

  constructor(syntax: TaggedSyntax) {
    this.syntax = syntax;
    this.outer = [...syntax.begin, ...(syntax.around ?? [])];
  }

  push(text: string): OutputEvent[] {
    this.pending += text;
    const events: OutputEvent[] = [];
    while (this.body === undefined ? this.outside(events) : this.inside(events));
    return events;
  }

  finish(): OutputEvent[] {
    const events: OutputEvent[] = [];
    if (this.body === undefined) {
      this.text(this.pending, events);
      if (!this.behindCall) events.push(...textEvents(this.gap));
    } else {
      events.push(...this.body.push(this.pending));
      this.endBody(events);
    }
    this.pending = '';
    this.gap = '';
    return events;
  }

  private outside(events: OutputEvent[]): boolean {
    const found = findMarker(this.pending, this.outer);
    if (found === undefined) {
      const held = heldFrom(this.pending, this.outer);
      this.text(this.pending.slice(0, held), events);
      this.pending = this.pending.slice(held);
      return false;
    }
    this.text(this.pending.slice(0, found.at), events);
    this.gap = '';
    this.behindCall = true;
    this.pending = this.pending.slice(found.at + found.marker.length);
    if (this.syntax.begin.includes(found.marker)) this.body = this.syntax.body(this.calls, found.marker);
    return true;
  }

  private inside(events: OutputEvent[]): boolean {
    const ends = [this.syntax.end, ...(this.syntax.around ?? [])];
    const found = findMarker(this.pending, ends);
    if (found === undefined) {
      const held = heldFrom(this.pending, ends);
      events.push(...(this.body?.push(this.pending.slice(0, held)) ?? []));
      this.pending = this.pending.slice(held);
      return false;
    }
    events.push(...(this.body?.push(this.pending.slice(0, found.at)) ?? []));
    this.pending = this.pending.slice(found.at + found.marker.length);
    this.endBody(events);
    return true;
  }

  private endBody(events: OutputEvent[]): void {
    const last = this.body?.end() ?? [];
    events.push(...last);
    if (last.some(({ type }) => type === 'tool-call-end')) this.calls++;
    this.body = undefined;
  }

  /** Text, its white space at the end kept back. */
  private text(text: string, events: OutputEvent[]): void {
    const whole = this.gap + text;
    const said = whole.trimEnd();
    this.gap = whole.slice(said.length);
    if (said !== '') this.behindCall = false;
    events.push(...textEvents(said));
  }
}
