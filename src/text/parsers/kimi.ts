/**
 * Tool calls of Kimi-K2:
 *
 *     <|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>…<|tool_calls_section_end|>
 *
 * The id of a call is what stands before the arguments: the template wants it back with the result.
 */
import type { CallSpelling } from './call-format.ts';
import { type OutputEvent, textEvents } from './events.ts';
import type { CallBody, TaggedSyntax } from './tagged-calls.ts';

export const KIMI_SECTION = '<|tool_calls_section_begin|>';
const SECTION_END = '<|tool_calls_section_end|>';
const CALL = '<|tool_call_begin|>';
const ARGUMENT = '<|tool_call_argument_begin|>';
const CALL_END = '<|tool_call_end|>';

export const KIMI_SYNTAX: TaggedSyntax = {
  begin: [CALL],
  end: CALL_END,
  around: [KIMI_SECTION, SECTION_END],
  body: (index) => new KimiCall(index),
};

export const KIMI_SPELLING: CallSpelling = {
  before: KIMI_SECTION,
  begin: (name) => `${CALL}functions.${name}:0${ARGUMENT}`,
  end: CALL_END,
  after: SECTION_END,
  markers: [KIMI_SECTION, SECTION_END, CALL, ARGUMENT, CALL_END],
};

class KimiCall implements CallBody {
  private readonly index: number;
  private head = '';
  private started = false;

  constructor(index: number) {
    this.index = index;
  }

  push(text: string): OutputEvent[] {
    if (this.started) return text === '' ? [] : [{ type: 'tool-call-arguments', index: this.index, fragment: text }];
    this.head += text;
    const at = this.head.indexOf(ARGUMENT);
    if (at < 0) return [];
    const id = this.head.slice(0, at).trim();
    const name = /^(?:functions\.)?(.*?)(?::\d+)?$/s.exec(id)?.[1] ?? '';
    if (name === '') return [];
    this.started = true;
    const rest = this.head.slice(at + ARGUMENT.length);
    return [{ type: 'tool-call-start', index: this.index, id, name }, ...this.push(rest)];
  }

  end(): OutputEvent[] {
    return this.started ? [{ type: 'tool-call-end', index: this.index }] : textEvents(this.head.trim());
  }
}
