/**
 * A call written as one JSON object, `{"name": "f", "arguments": {…}}` (Qwen, Hermes; Llama says `parameters`): the name
 * is told as soon as it is known, the arguments as they come.
 */
import { type OutputEvent, randomCallId, textEvents } from './events.ts';
import type { CallBody } from './tagged-calls.ts';

const ARGUMENTS = new Set(['arguments', 'parameters']);

/** Where the reader is: before a key, in it, before the colon, before the value, in it, behind it, behind the object. */
type State = 'open' | 'key' | 'colon' | 'value' | 'inside' | 'comma' | 'done' | 'broken';

export class JsonCall implements CallBody {
  private readonly index: number;
  private readonly newId: (index: number) => string;
  private state: State = 'open';
  private raw = '';
  private key = '';
  private value = '';
  private depth = 0;
  /** The value is a number or a word. */
  private plain = false;
  private inString = false;
  private escaped = false;
  private started = false;
  /** Arguments that came before the name. */
  private early = '';

  constructor(index: number, newId: (index: number) => string = randomCallId) {
    this.index = index;
    this.newId = newId;
  }

  /** The object is complete; what follows is not its own. */
  get complete(): boolean {
    return this.state === 'done';
  }

  push(text: string): OutputEvent[] {
    this.raw += text;
    const events: OutputEvent[] = [];
    let from = 0; // of the value's characters in `text`
    for (let i = 0; i < text.length; i++) {
      const c = text[i];
      if (this.state === 'inside') {
        if (!this.valueEnds(c)) continue;
        // Numbers and words end at what follows them; the rest with its own last character.
        const own = this.plain ? 0 : 1;
        this.take(text.slice(from, i + own), events);
        this.endValue(events);
        if (own === 0) i--;
      } else if (this.step(c)) from = i;
    }
    if (this.state === 'inside') this.take(text.slice(from), events);
    return events;
  }

  end(): OutputEvent[] {
    if (!this.started) return textEvents(this.raw.trim());
    const events: OutputEvent[] = [];
    if (this.state === 'inside' && ARGUMENTS.has(this.key) && this.value.startsWith('"')) this.endValue(events);
    return [...events, { type: 'tool-call-end', index: this.index }];
  }

  /** One character outside values; true where it begins a value. */
  private step(c: string): boolean {
    const blank = /\s/.test(c);
    switch (this.state) {
      case 'open':
        if (c === '{' && this.depth === 0) this.depth = 1;
        else if (c === '"' && this.depth === 1) {
          this.state = 'key';
          this.key = '';
        } else if (c === '}' && this.depth === 1) this.state = 'done';
        else if (!blank) this.state = 'broken';
        return false;
      case 'key':
        if (c === '"' && !this.escaped) this.state = 'colon';
        else this.key += c;
        this.escaped = c === '\\' && !this.escaped;
        return false;
      case 'colon':
        if (c === ':') this.state = 'value';
        else if (!blank) this.state = 'broken';
        return false;
      case 'value':
        if (blank) return false;
        this.state = 'inside';
        this.value = '';
        this.depth = c === '{' || c === '[' ? 2 : 1;
        this.inString = c === '"';
        this.plain = this.depth === 1 && !this.inString;
        this.escaped = false;
        return true;
      case 'comma':
        if (c === ',') this.state = 'open';
        else if (c === '}') this.state = 'done';
        else if (!blank) this.state = 'broken';
        return false;
      default:
        return false;
    }
  }

  /** Follows a value; true at the character that ends it or comes after it. */
  private valueEnds(c: string): boolean {
    if (this.inString) {
      if (c === '"' && !this.escaped) {
        this.inString = false;
        if (this.depth === 1) return true;
      }
      this.escaped = c === '\\' && !this.escaped;
      return false;
    }
    if (c === '"') {
      this.inString = true;
      this.escaped = false;
    } else if (c === '{' || c === '[') this.depth++;
    else if (c === '}' || c === ']') {
      if (this.depth === 1) return true;
      this.depth--;
      return this.depth === 1;
    } else if (c === ',' && this.depth === 1) return true;
    return false;
  }

  private take(text: string, events: OutputEvent[]): void {
    this.value += text;
    if (!ARGUMENTS.has(this.key) || this.value.startsWith('"')) return;
    if (this.started) this.say(text, events);
    else this.early += text;
  }

  private endValue(events: OutputEvent[]): void {
    this.state = 'comma';
    this.depth = 1;
    if (this.key === 'name' && !this.started) {
      const name = parsed(this.value);
      if (typeof name !== 'string' || name === '') {
        this.state = 'broken';
        return;
      }
      this.started = true;
      events.push({ type: 'tool-call-start', index: this.index, id: this.newId(this.index), name });
      this.say(this.early, events);
      this.early = '';
    } else if (ARGUMENTS.has(this.key) && this.value.startsWith('"')) {
      // Some models write the arguments as a string of JSON.
      const inner = parsed(this.value);
      const json = typeof inner === 'string' ? inner : this.value;
      if (this.started) this.say(json, events);
      else this.early += json;
    }
  }

  private say(fragment: string, events: OutputEvent[]): void {
    if (fragment !== '') events.push({ type: 'tool-call-arguments', index: this.index, fragment });
  }
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
