/**
 * The harmony format of gpt-oss: messages of a header and a body, in channels.
 *
 *     <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
 *     …<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>
 *
 * `analysis` is reasoning; a message with a recipient is a call of that tool; everything else (`final`, remarks in
 * `commentary`) is text. The prompt ends with `<|start|>assistant`, so the output begins inside a header; an output that
 * begins with neither a marker nor a recipient is text. Messages of one kind in a row are parted by a line break.
 * A header that never comes to its message is text.
 */
import { findMarker, heldFrom } from '../markers.ts';
import type { CallSpelling } from './call-format.ts';
import { type OutputEvent, SteppingParser } from './events.ts';

export const CHANNEL = '<|channel|>';
const START = '<|start|>';
const MESSAGE = '<|message|>';
const CONSTRAIN = '<|constrain|>';
/** A call that is demanded comes at once, without analysis; `<|call|>` is an end of generation. */
export const HARMONY_SPELLING: CallSpelling = {
  before: '',
  begin: (name) => `${CHANNEL}commentary to=functions.${name} ${CONSTRAIN}json${MESSAGE}`,
  end: '',
  after: '',
  markers: [CHANNEL, CONSTRAIN, MESSAGE],
  first: true,
};
const ENDS = ['<|end|>', '<|return|>', '<|call|>'];

/** What a header leads to, and what ends it without a message. */
const IN_HEADER = [MESSAGE, ...ENDS];
/** What ends a body; the last two where its own end was forgotten. */
const IN_BODY = [...ENDS, START, CHANNEL];
/** How an output, or what follows a message, may begin with a header. */
const OPENERS = [START, CHANNEL, CONSTRAIN, 'to='];

export interface HarmonyOptions {
  /** Makes the id of the call of that index; unique in the conversation. */
  readonly newId: (index: number) => string;
  /** `none` leaves messages of `analysis` in the text as they are. */
  readonly reasoning: 'separate' | 'none';
  /** `none` leaves calls in the text as they are. */
  readonly tools: 'separate' | 'none';
}

/** `raw` is text that keeps its markers. */
type Kind = 'reasoning' | 'text' | 'call' | 'raw';
type State = 'between' | 'header' | 'body';

export class HarmonyParser extends SteppingParser {
  private readonly options: HarmonyOptions;
  private state: State = 'between';
  private kind: Kind = 'text';
  /** The kind whose last message said something, for the line break before its next. */
  private said: Kind | undefined;
  /** The current message said something. */
  private began = false;
  private index = -1;

  constructor(options: HarmonyOptions) {
    super();
    this.options = options;
  }

  finish(): OutputEvent[] {
    const events: OutputEvent[] = [];
    if (this.state === 'body') {
      this.say(this.kind === 'text' || this.kind === 'raw' ? this.pending : this.pending.trimEnd(), events);
      this.endMessage(events);
    } else if (this.pending.trim() !== '') {
      this.open('text');
      this.say(this.pending, events);
    }
    this.pending = '';
    this.state = 'between';
    return events;
  }

  protected step(events: OutputEvent[]): boolean {
    if (this.state === 'between') return this.between();
    return this.state === 'header' ? this.readHeader(events) : this.readBody(events);
  }

  /** White space and ends without a message are dropped; then comes a header, or text without one. */
  private between(): boolean {
    const rest = this.pending.trimStart();
    if (rest === '') return false;
    const end = ENDS.find((marker) => rest.startsWith(marker));
    if (end !== undefined) {
      this.pending = rest.slice(end.length);
      return true;
    }
    if (OPENERS.some((opener) => rest.startsWith(opener))) this.state = 'header';
    else if ([...OPENERS, ...ENDS].some((opener) => opener.startsWith(rest))) return false;
    else this.open('text');
    return true;
  }

  private readHeader(events: OutputEvent[]): boolean {
    const found = findMarker(this.pending, IN_HEADER);
    if (found === undefined) return false;
    const length = found.at + found.marker.length;
    const header = this.pending.slice(0, length);
    this.pending = this.pending.slice(length);
    if (found.marker !== MESSAGE) {
      this.open('text');
      this.say(header, events);
      this.endMessage(events);
      return true;
    }
    const { kind, name } = this.kindOf(header);
    this.open(kind);
    if (kind === 'raw') this.say(header, events);
    if (kind === 'call') {
      this.index++;
      events.push({ type: 'tool-call-start', index: this.index, id: this.options.newId(this.index), name });
    }
    return true;
  }

  /** `assistant to=functions.x<|channel|>commentary …` or `<|channel|>commentary to=functions.x …`. */
  private kindOf(header: string): { readonly kind: Kind; readonly name: string } {
    const recipient = /(?:^|[\s>])to=([^\s<]+)/.exec(header)?.[1] ?? '';
    const name = recipient.replace(/^functions\./, '');
    if (name !== '') return { kind: this.options.tools === 'none' ? 'raw' : 'call', name };
    const [channel] = (header.split(CHANNEL)[1] ?? '').trim().split(/[\s<]/);
    if (channel !== 'analysis') return { kind: 'text', name };
    return { kind: this.options.reasoning === 'none' ? 'raw' : 'reasoning', name };
  }

  private readBody(events: OutputEvent[]): boolean {
    if (!this.began && (this.kind === 'reasoning' || this.kind === 'call')) this.pending = this.pending.trimStart();
    const found = findMarker(this.pending, IN_BODY);
    let certain = this.pending.slice(0, found?.at ?? heldFrom(this.pending, IN_BODY));
    if (this.kind === 'reasoning' || this.kind === 'call') certain = certain.trimEnd();
    this.say(certain, events);
    if (found === undefined) {
      this.pending = this.pending.slice(certain.length);
      return false;
    }
    const isEnd = ENDS.includes(found.marker);
    if (isEnd && this.kind === 'raw') this.say(found.marker, events);
    this.pending = this.pending.slice(found.at + (isEnd ? found.marker.length : 0));
    this.endMessage(events);
    return true;
  }

  private open(kind: Kind): void {
    this.kind = kind;
    this.began = false;
    this.state = 'body';
  }

  private say(text: string, events: OutputEvent[]): void {
    if (text === '') return;
    if (this.kind === 'call') events.push({ type: 'tool-call-arguments', index: this.index, fragment: text });
    else {
      const type = this.kind === 'reasoning' ? 'reasoning' : 'text';
      const broken = !this.began && this.said === this.kind && this.kind !== 'raw';
      events.push({ type, text: broken ? `\n${text}` : text });
    }
    this.began = true;
  }

  private endMessage(events: OutputEvent[]): void {
    if (this.kind === 'call') {
      if (!this.began) this.say('{}', events);
      events.push({ type: 'tool-call-end', index: this.index });
    }
    if (this.began) this.said = this.kind;
    this.state = 'between';
  }
}
