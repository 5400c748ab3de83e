/**
 * From messages to the ids a model reads: guard what people wrote, render, encode.
 *
 * Control tokens count where the template writes them and nowhere else: `<｜User｜>` typed by a user, returned by a
 * tool or put into the arguments of a call is encoded as ordinary text.
 */
import { type ChatTemplate, opensThinking, type RenderOptions } from './chat-template.ts';
import type { ChatMessage } from './messages.ts';
import { CONTROL_GUARD } from './special-tokens.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface ChatPrompt {
  readonly text: string;
  readonly ids: number[];
  /** The answer starts inside `<think>`; the output parser must know. */
  readonly opensThinking: boolean;
}

/** Throws TEMPLATE_INVALID where the template refuses the messages. */
export function chatPrompt(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: RenderOptions = {},
): ChatPrompt {
  const guard = (text: string): string => tokenizer.guard(text);
  const guarded = template.render(
    messages.map((message) => guardMessage(message, guard)),
    { ...options, tools: options.tools?.map((tool) => guardStrings(tool, guard)) },
  );
  const text = guarded.replaceAll(CONTROL_GUARD, '');
  return {
    text,
    ids: tokenizer.encode(guarded, { parseSpecial: true, guarded: true }),
    opensThinking: opensThinking(text),
  };
}

function guardMessage(message: ChatMessage, guard: (text: string) => string): ChatMessage {
  // The role decides the template's branch and is no text of anybody.
  return { ...guardStrings(message, guard), role: message.role };
}

/** Guards every string of a value, keys of objects aside. */
function guardStrings<T>(value: T, guard: (text: string) => string): T {
  if (typeof value === 'string') return guard(value) as T;
  if (Array.isArray(value)) return value.map((item) => guardStrings(item, guard)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, guardStrings(item, guard)])) as T;
}
