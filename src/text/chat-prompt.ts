/**
 * From messages to the ids a model reads: guard what people wrote, render, encode.
 *
 * Control tokens count where the template writes them and nowhere else: `<｜User｜>` typed by a user, returned by a
 * tool, put into the arguments of a call, a tool's schema or a template variable is encoded as ordinary text.
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

/**
 * Throws TEMPLATE_INVALID where the template refuses the messages. `check` sees the rendered text before it is encoded, and
 * may throw.
 */
export function chatPrompt(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: RenderOptions = {},
  check: (text: string) => void = () => {},
): ChatPrompt {
  const guard = (text: string): string => tokenizer.guard(text);
  // After translation: arguments of calls are objects by then, and escapes in their JSON are characters.
  const guarded = template.render(messages, { ...options, protect: (value) => guardStrings(value, guard) });
  const text = guarded.replaceAll(CONTROL_GUARD, '');
  check(text);
  return {
    text,
    ids: tokenizer.encode(guarded, { parseSpecial: true, guarded: true }),
    opensThinking: opensThinking(text),
  };
}

/** Guards every string of a value of arrays and plain objects, names of properties included. */
function guardStrings<T>(value: T, guard: (text: string) => string): T {
  if (typeof value === 'string') return guard(value) as T;
  if (Array.isArray(value)) return value.map((item) => guardStrings(item, guard)) as T;
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [guard(key), guardStrings(item, guard)])) as T;
}
