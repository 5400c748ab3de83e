/** Output items of a response as they grow, and the events that tell of it. Items are open one at a time. */
import type { GenerationEvent, GenerationResult } from '../../../engine/result.ts';
import { sseEvent } from '../../stream.ts';
import { callArguments } from './usage.ts';

type Item = { id: string; type: string; status: string } & Record<string, unknown>;

export class ResponsesOutput {
  readonly items: Item[] = [];
  #sequence = 0;
  #open: { readonly item: Item; text: string } | undefined;

  /** One event, numbered. */
  event(type: string, data: object): string {
    return sseEvent({ type, sequence_number: this.#sequence++, ...data }, type);
  }

  /** Events of one piece of a generation. */
  take(piece: Exclude<GenerationEvent, { type: 'prefill' | 'done' | 'token' }>): string {
    switch (piece.type) {
      case 'reasoning':
        return this.#say('reasoning', piece.text);
      case 'text':
        return this.#say('message', piece.text);
      case 'tool-call-start':
        return (
          this.close() +
          this.#add({
            id: newId('fc'),
            type: 'function_call',
            status: 'in_progress',
            call_id: piece.id,
            name: piece.name,
            arguments: '',
          })
        );
      case 'tool-call-arguments':
        return this.#delta('response.function_call_arguments.delta', piece.fragment, {});
      case 'tool-call-end':
        return this.close();
    }
  }

  /** Ends the open item. */
  close(): string {
    if (this.#open === undefined) return '';
    const { item, text } = this.#open;
    const at = this.#place();
    this.#open = undefined;
    item.status = 'completed';
    let done: string;
    if (item.type === 'function_call') {
      item.arguments = callArguments(text);
      done = this.event('response.function_call_arguments.done', {
        ...at,
        name: item.name,
        arguments: item.arguments,
      });
    } else {
      const { name, part } = textPart(item.type, text);
      item.content = [part];
      done =
        this.event(`response.${name}.done`, { ...at, content_index: 0, text, ...logprobsOf(name) }) +
        this.event('response.content_part.done', { ...at, content_index: 0, part });
    }
    return done + this.event('response.output_item.done', { output_index: at.output_index, item });
  }

  /** Text of an item, which begins where another kind was open. */
  #say(type: 'message' | 'reasoning', text: string): string {
    const { name, part } = textPart(type, '');
    let before = '';
    if (this.#open?.item.type !== type) {
      const own = type === 'message' ? { id: newId('msg'), role: 'assistant' } : { id: newId('rs'), summary: [] };
      before =
        this.close() +
        this.#add({ ...own, type, status: 'in_progress', content: [] }) +
        this.event('response.content_part.added', { ...this.#place(), content_index: 0, part });
    }
    return before + this.#delta(`response.${name}.delta`, text, { content_index: 0, ...logprobsOf(name) });
  }

  #add(item: Item): string {
    this.items.push(item);
    this.#open = { item, text: '' };
    return this.event('response.output_item.added', { output_index: this.items.length - 1, item: { ...item } });
  }

  #delta(type: string, delta: string, more: object): string {
    if (this.#open !== undefined) this.#open.text += delta;
    return this.event(type, { ...this.#place(), ...more, delta });
  }

  #place() {
    return { item_id: this.#open?.item.id, output_index: this.items.length - 1 };
  }
}

/** The content of a text item, and the name of the events that tell of it. */
function textPart(type: string, text: string) {
  return type === 'message'
    ? { name: 'output_text', part: { type: 'output_text', text, annotations: [], logprobs: [] } }
    : { name: 'reasoning_text', part: { type: 'reasoning_text', text } };
}

function logprobsOf(name: string): object {
  return name === 'output_text' ? { logprobs: [] } : {};
}

export function newId(prefix: string): string {
  return `${prefix}_${crypto.randomUUID().replaceAll('-', '')}`;
}

/** The items of a finished answer. */
export function outputOf(result: GenerationResult): Item[] {
  const output = new ResponsesOutput();
  if (result.reasoning !== '') output.take({ type: 'reasoning', text: result.reasoning });
  if (result.text !== '') output.take({ type: 'text', text: result.text });
  result.toolCalls.forEach(({ id, name, arguments: json }, index) => {
    output.take({ type: 'tool-call-start', index, id, name });
    if (json !== '') output.take({ type: 'tool-call-arguments', index, fragment: json });
    output.take({ type: 'tool-call-end', index });
  });
  output.close();
  return output.items;
}
