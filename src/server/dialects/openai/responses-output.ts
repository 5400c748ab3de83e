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
        return (
          this.#enter('reasoning') + this.#delta('response.reasoning_text.delta', piece.text, { content_index: 0 })
        );
      case 'text':
        return (
          this.#enter('message') +
          this.#delta('response.output_text.delta', piece.text, { content_index: 0, logprobs: [] })
        );
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
    const done = (): string => {
      switch (item.type) {
        case 'reasoning': {
          const part = { type: 'reasoning_text', text };
          item.content = [part];
          return this.event('response.reasoning_text.done', { ...at, content_index: 0, text });
        }
        case 'message': {
          const part = { type: 'output_text', text, annotations: [], logprobs: [] };
          item.content = [part];
          return (
            this.event('response.output_text.done', { ...at, content_index: 0, text, logprobs: [] }) +
            this.event('response.content_part.done', { ...at, content_index: 0, part })
          );
        }
        default:
          item.arguments = callArguments(text);
          return this.event('response.function_call_arguments.done', {
            ...at,
            name: item.name,
            arguments: item.arguments,
          });
      }
    };
    return done() + this.event('response.output_item.done', { output_index: at.output_index, item });
  }

  #enter(type: 'message' | 'reasoning'): string {
    if (this.#open?.item.type === type) return '';
    const closed = this.close();
    if (type === 'reasoning')
      return closed + this.#add({ id: newId('rs'), type, status: 'in_progress', summary: [], content: [] });
    const added = this.#add({ id: newId('msg'), type, status: 'in_progress', role: 'assistant', content: [] });
    const part = { type: 'output_text', text: '', annotations: [], logprobs: [] };
    return closed + added + this.event('response.content_part.added', { ...this.#place(), content_index: 0, part });
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
