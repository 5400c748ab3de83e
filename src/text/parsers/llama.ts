/**
 * Tool calls of Llama 3: the whole answer is one JSON object `{"name": …, "parameters": …}`, perhaps behind
 * `<|python_tag|>`, several of them with `;` between. An answer that begins otherwise is text to its end.
 */
import type { CallSpelling } from './call-format.ts';
import { type OutputEvent, SteppingParser, textEvents } from './events.ts';
import { JsonCall } from './json-call.ts';

export const PYTHON_TAG = '<|python_tag|>';

/** Begins of what could be a call. */
const HEAD = /^\{\s*"(?:name|type|parameters|arguments)"/;

export const LLAMA_SPELLING: CallSpelling = {
  before: '',
  begin: (name) => `{"name": ${JSON.stringify(name)}, "parameters": `,
  end: '}',
  after: '',
  markers: [],
};

export class LlamaToolParser extends SteppingParser {
  private readonly newId: ((index: number) => string) | undefined;
  private state: 'start' | 'text' | 'call' = 'start';
  private call: JsonCall | undefined;
  private calls = 0;

  constructor(newId?: (index: number) => string) {
    super();
    this.newId = newId;
  }

  finish(): OutputEvent[] {
    const events =
      this.call === undefined ? textEvents(this.calls > 0 ? this.pending.trim() : this.pending) : this.endCall();
    this.pending = '';
    return events;
  }

  protected step(events: OutputEvent[]): boolean {
    switch (this.state) {
      case 'text':
        events.push(...textEvents(this.pending));
        this.pending = '';
        return false;
      case 'start': {
        const lead = this.calls > 0 ? /^[\s;]*/ : /^\s*/;
        const rest = this.pending.replace(lead, '');
        if (rest.startsWith(PYTHON_TAG)) {
          this.pending = rest.slice(PYTHON_TAG.length);
          return true;
        }
        if (rest === '' || PYTHON_TAG.startsWith(rest)) return false;
        if (HEAD.test(rest)) {
          this.pending = rest;
          this.call = new JsonCall(this.calls, this.newId);
          this.state = 'call';
          return true;
        }
        if (couldBeHead(rest)) return false;
        this.state = 'text';
        return true;
      }
      case 'call': {
        if (this.pending === '' || this.call === undefined) return false;
        // Character by character: what follows the object is not its own.
        let used = 0;
        const own: OutputEvent[] = [];
        while (used < this.pending.length && !this.call.complete) own.push(...this.call.push(this.pending[used++]));
        events.push(...own);
        this.pending = this.pending.slice(used);
        if (!this.call.complete) return false;
        events.push(...this.endCall());
        return true;
      }
    }
  }

  private endCall(): OutputEvent[] {
    const events = this.call?.end() ?? [];
    this.call = undefined;
    this.state = 'start';
    if (events.some(({ type }) => type === 'tool-call-end')) this.calls++;
    return events;
  }
}

/** A proper beginning of what `HEAD` takes. */
function couldBeHead(text: string): boolean {
  return /^\{\s*(?:"[a-z]*)?$/.test(text) && text.length < 64;
}
