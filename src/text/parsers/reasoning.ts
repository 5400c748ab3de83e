/**
 * Separates `<think>…</think>` from the answer. A template may have opened it in the prompt already.
 *
 * `<think>` counts only at the start of the output (white space aside): later it is text, as a model may well write
 * about it. White space at both ends of the reasoning and before the answer is dropped. A model whose thinking was ended for
 * it may go on thinking and end it once more: such a `</think>` is no part of the answer.
 */
import { findMarker, heldFrom } from '../markers.ts';
import { type OutputEvent, type OutputParser, SteppingParser } from './events.ts';

const OPEN = '<think>';
const CLOSE = '</think>';

export interface ReasoningOptions {
  /** The prompt ended inside `<think>`. */
  readonly startInside?: boolean;
  /** Markers that end reasoning without being part of it: a model that forgets `</think>` before its tool calls. */
  readonly interrupts?: readonly string[];
  /** True once thinking was ended for the model. */
  readonly cut?: () => boolean;
}

/** Leaves thinking in the text; where the prompt opened it, the mark that opens it stands before. Clients look for both marks. */
export class OpenedReasoning implements OutputParser {
  private begun = false;

  push(text: string): OutputEvent[] {
    const mark = this.begun ? '' : `${OPEN}\n`;
    this.begun = true;
    return [{ type: 'text', text: mark + text }];
  }

  finish(): OutputEvent[] {
    return [];
  }
}

/** `start`: nothing but white space yet. `skip`: reasoning is over, white space before the answer is dropped. */
type State = 'start' | 'reasoning' | 'skip' | 'text';

export class ReasoningParser extends SteppingParser {
  private state: State;
  private began = false;
  private readonly closers: readonly string[];
  private readonly startInside: boolean;
  private readonly cut: () => boolean;

  constructor({ startInside = false, interrupts = [], cut = () => false }: ReasoningOptions = {}) {
    super();
    this.startInside = startInside;
    this.cut = cut;
    this.state = 'start';
    this.closers = [CLOSE, ...interrupts];
  }

  finish(): OutputEvent[] {
    const rest = this.pending;
    this.pending = '';
    if (this.state === 'reasoning' || (this.state === 'start' && this.startInside)) {
      const text = this.began ? rest.trimEnd() : rest.trim();
      return text === '' ? [] : [{ type: 'reasoning', text }];
    }
    return rest === '' || this.state === 'skip' ? [] : [{ type: 'text', text: rest }];
  }

  protected step(events: OutputEvent[]): boolean {
    switch (this.state) {
      case 'start':
        return this.start();
      case 'reasoning':
        return this.reason(events);
      case 'skip':
        this.pending = this.pending.trimStart();
        if (this.pending === '') return false;
        this.state = 'text';
        return true;
      case 'text':
        return this.answer(events);
    }
  }

  private answer(events: OutputEvent[]): boolean {
    const closers = this.cut() ? [CLOSE] : [];
    const found = findMarker(this.pending, closers);
    const at = found?.at ?? heldFrom(this.pending, closers);
    if (at > 0) events.push({ type: 'text', text: this.pending.slice(0, at) });
    this.pending = this.pending.slice(found === undefined ? at : at + CLOSE.length);
    return found !== undefined;
  }

  private start(): boolean {
    const seen = this.pending.trimStart();
    if (seen.length < OPEN.length && OPEN.startsWith(seen)) return false;
    if (seen.startsWith(OPEN)) {
      this.pending = seen.slice(OPEN.length);
      this.state = 'reasoning';
    } else this.state = this.startInside ? 'reasoning' : 'text';
    return true;
  }

  private reason(events: OutputEvent[]): boolean {
    if (!this.began) this.pending = this.pending.trimStart();
    const found = findMarker(this.pending, this.closers);
    const certain = this.pending.slice(0, found?.at ?? heldFrom(this.pending, this.closers)).trimEnd();
    if (certain !== '') {
      events.push({ type: 'reasoning', text: certain });
      this.began = true;
    }
    if (found === undefined) {
      this.pending = this.pending.slice(certain.length);
      return false;
    }
    this.pending = this.pending.slice(found.at + (found.marker === CLOSE ? CLOSE.length : 0));
    this.state = 'skip';
    return true;
  }
}
