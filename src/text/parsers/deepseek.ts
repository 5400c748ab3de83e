/**
 * Tool calls of DeepSeek models, in both spellings:
 *
 *     V3, R1  <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME⏎```json⏎{…}⏎```<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>
 *     V3.1    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>
 *
 * A call starts as soon as its name is known and its arguments stream. A header that never becomes a call is text.
 * A call that breaks off ends with what it had; a call without arguments has `{}`.
 */
import { findMarker, heldFrom } from '../markers.ts';
import type { CallSpelling } from './call-format.ts';
import { type OutputEvent, randomCallId, SteppingParser } from './events.ts';

export const CALLS_BEGIN = '<｜tool▁calls▁begin｜>';
const CALLS_END = '<｜tool▁calls▁end｜>';
const CALL_BEGIN = '<｜tool▁call▁begin｜>';
const CALL_END = '<｜tool▁call▁end｜>';
const SEPARATOR = '<｜tool▁sep｜>';

const ALL = [CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR];
/** What ends the arguments: the marker for it, or one that shows it was forgotten. */
const ARGUMENT_ENDS = [CALL_END, CALLS_END, CALL_BEGIN, CALLS_BEGIN];
const FENCE = '```';

/** V3's and R1's spelling; V3.1's templates have no fence. */
export function deepSeekSpelling(template: string): CallSpelling {
  const fenced = template.includes(FENCE);
  return {
    before: CALLS_BEGIN,
    begin: (name) =>
      fenced ? `${CALL_BEGIN}function${SEPARATOR}${name}\n${FENCE}json\n` : `${CALL_BEGIN}${name}${SEPARATOR}`,
    end: fenced ? `\n${FENCE}${CALL_END}` : CALL_END,
    after: CALLS_END,
    markers: ALL,
  };
}

/**
 * Where the parser stands. `text`: outside; `after`: in white space behind the calls; `calls`: between calls;
 * `header`: before the separator; `decide`: behind it, the spelling unknown; then V3's `name` and `fence`; `arguments`.
 */
type State = 'text' | 'after' | 'calls' | 'header' | 'decide' | 'name' | 'fence' | 'arguments';

export class DeepSeekToolParser extends SteppingParser {
  private readonly newId: (index: number) => string;
  private state: State = 'text';
  /** What was taken since the markers of the current call began, to give it back as text. */
  private raw = '';
  private header = '';
  private index = -1;
  private hasArguments = false;

  /** @param newId makes the id of the call of that index; unique in the conversation. */
  constructor(newId: (index: number) => string = randomCallId) {
    super();
    this.newId = newId;
  }

  finish(): OutputEvent[] {
    const events: OutputEvent[] = [];
    const name = this.state === 'name' ? this.pending.trim() : '';
    if (name !== '') {
      this.pending = '';
      this.startCall(name, events);
    }
    if (this.state === 'arguments' || this.state === 'fence') {
      // What is pending before the arguments is no more than a part of the fence.
      if (this.state === 'arguments') this.argument(trimFence(this.pending, true), events);
      this.endCall(events);
    } else if (this.state === 'text' || (this.raw + this.pending).trim() !== '') {
      pushText(events, this.raw + this.pending);
    }
    this.pending = '';
    this.raw = '';
    this.state = 'text';
    return events;
  }

  protected step(events: OutputEvent[]): boolean {
    switch (this.state) {
      case 'text':
        return this.outside(events);
      case 'after':
        this.pending = this.pending.trimStart();
        if (this.pending === '') return false;
        this.state = 'text';
        return true;
      case 'calls':
        return this.between(events);
      case 'header':
        return this.readHeader(events);
      case 'decide':
        return this.decide(events);
      case 'name':
        return this.readName(events);
      case 'fence':
        return this.skipFence();
      case 'arguments':
        return this.readArguments(events);
    }
  }

  private outside(events: OutputEvent[]): boolean {
    const markers = [CALLS_BEGIN, CALL_BEGIN];
    const found = findMarker(this.pending, markers);
    const to = found?.at ?? heldFrom(this.pending, markers);
    pushText(events, this.take(to));
    if (found === undefined) return false;
    if (found.marker === CALLS_BEGIN) this.raw = this.take(CALLS_BEGIN.length);
    this.state = 'calls';
    return true;
  }

  /** White space between calls is dropped; anything else there is text. */
  private between(events: OutputEvent[]): boolean {
    const blank = this.pending.length - this.pending.trimStart().length;
    const rest = this.pending.slice(blank);
    if (rest.startsWith(CALL_BEGIN)) {
      this.raw += this.take(blank + CALL_BEGIN.length);
      this.header = '';
      this.state = 'header';
      return true;
    }
    if (rest.startsWith(CALLS_END)) {
      // Begin and end without a call between: nothing was said.
      this.take(blank + CALLS_END.length);
      this.raw = '';
      this.state = 'after';
      return true;
    }
    if ([CALL_BEGIN, CALLS_END].some((marker) => marker.startsWith(rest))) return false;
    this.giveUp(events);
    return true;
  }

  private readHeader(events: OutputEvent[]): boolean {
    const found = findMarker(this.pending, ALL);
    const to = found?.at ?? heldFrom(this.pending, ALL);
    const part = this.take(to);
    this.header += part;
    this.raw += part;
    const broken = this.header.trim().includes('\n');
    if (found === undefined && !broken) return false;
    if (broken || found?.marker !== SEPARATOR || this.header.trim() === '') {
      this.giveUp(events);
      return true;
    }
    this.raw += this.take(SEPARATOR.length);
    this.state = 'decide';
    return true;
  }

  /** V3 says `function` where V3.1 has the name; what follows the name of V3.1 is never a name. */
  private decide(events: OutputEvent[]): boolean {
    if (this.header.trim() !== 'function') {
      this.startCall(this.header, events);
      return true;
    }
    const rest = this.pending.trimStart();
    if (rest === '') return false;
    if (rest.startsWith('{')) this.startCall(this.header, events);
    else this.state = 'name';
    return true;
  }

  private readName(events: OutputEvent[]): boolean {
    const start = this.pending.length - this.pending.trimStart().length;
    const newline = this.pending.indexOf('\n', start);
    const found = findMarker(this.pending, ARGUMENT_ENDS);
    const to = Math.min(newline < 0 ? Infinity : newline, found?.at ?? Infinity);
    if (to === Infinity) return false;
    const name = this.pending.slice(start, to);
    if (name.trim() === '') {
      this.giveUp(events);
      return true;
    }
    this.take(to);
    this.startCall(name, events);
    this.state = 'fence';
    return true;
  }

  /** Skips "```json" and the white space around it, where it is. */
  private skipFence(): boolean {
    const rest = this.pending.trimStart();
    if (FENCE.startsWith(rest)) return false;
    if (rest.startsWith(FENCE)) {
      const line = rest.indexOf('\n');
      const open = /^```[A-Za-z]*(?=[^A-Za-z\n])/.exec(rest);
      if (open !== null) this.pending = rest.slice(open[0].length);
      else if (line >= 0) this.pending = rest.slice(line + 1);
      else return false;
    }
    this.state = 'arguments';
    return true;
  }

  private readArguments(events: OutputEvent[]): boolean {
    if (!this.hasArguments) this.pending = this.pending.trimStart();
    const found = findMarker(this.pending, ARGUMENT_ENDS);
    if (found !== undefined) {
      this.argument(trimFence(this.take(found.at)), events);
      if (found.marker === CALL_END) this.take(CALL_END.length);
      this.endCall(events);
      return true;
    }
    const certain = trimFence(this.pending.slice(0, heldFrom(this.pending, ARGUMENT_ENDS)), true);
    this.argument(this.take(certain.length), events);
    return false;
  }

  private startCall(name: string, events: OutputEvent[]): void {
    this.index++;
    this.raw = '';
    this.hasArguments = false;
    this.state = 'arguments';
    events.push({ type: 'tool-call-start', index: this.index, id: this.newId(this.index), name: name.trim() });
  }

  private argument(fragment: string, events: OutputEvent[]): void {
    if (fragment === '') return;
    this.hasArguments = true;
    events.push({ type: 'tool-call-arguments', index: this.index, fragment });
  }

  private endCall(events: OutputEvent[]): void {
    if (!this.hasArguments) this.argument('{}', events);
    events.push({ type: 'tool-call-end', index: this.index });
    this.state = 'calls';
  }

  /** What was taken for the beginning of a call is text. */
  private giveUp(events: OutputEvent[]): void {
    pushText(events, this.raw);
    this.raw = '';
    this.state = 'text';
  }

  private take(length: number): string {
    const taken = this.pending.slice(0, length);
    this.pending = this.pending.slice(length);
    return taken;
  }
}

function pushText(events: OutputEvent[], text: string): void {
  if (text !== '') events.push({ type: 'text', text });
}

/** Takes the closing fence and the white space around it off the end; `partial` also takes one or two backticks. */
function trimFence(text: string, partial = false): string {
  const bare = text.trimEnd();
  const ticks = partial ? Math.min(3, bare.length - bare.replace(/`+$/, '').length) : bare.endsWith(FENCE) ? 3 : 0;
  return ticks === 0 ? bare : bare.slice(0, bare.length - ticks).trimEnd();
}
