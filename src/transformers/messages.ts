/** Messages and tools as code for @huggingface/transformers writes them → those of the engine. */
import { TandemError } from '../errors.ts';
import type { ChatMessage, ChatRole, ToolDefinition } from '../text/messages.ts';

/** A message of a chat; content may come in parts, of which text is known. */
export interface Message {
  readonly role: string;
  readonly content: string | readonly { readonly type: string; readonly text?: string }[];
  readonly tool_calls?: readonly {
    readonly id?: string;
    readonly function: { readonly name: string; readonly arguments: unknown };
  }[];
  readonly tool_call_id?: string;
  readonly name?: string;
}

/** A tool as in the OpenAI API, with or without its envelope. */
export type ToolSpec = ToolDefinition | { readonly type: 'function'; readonly function: ToolDefinition };

export function toChatMessages(messages: readonly Message[]): ChatMessage[] {
  return messages.map(({ role, content, tool_calls, tool_call_id, name }) => ({
    role: role as ChatRole, // the engine looks at it
    content: typeof content === 'string' ? content : content.map(textOf).join(''),
    ...(tool_calls && {
      toolCalls: tool_calls.map(({ id, function: { name, arguments: given } }) => ({
        id,
        name,
        arguments: typeof given === 'string' ? given : JSON.stringify(given ?? {}),
      })),
    }),
    ...(tool_call_id !== undefined && { toolCallId: tool_call_id }),
    ...(name !== undefined && { name }),
  }));
}

export function toTools(tools: readonly ToolSpec[] | null | undefined): ToolDefinition[] | undefined {
  return tools?.map((tool) => ('function' in tool ? tool.function : tool));
}

/** A conversation, and not texts or several conversations. */
export function isChat(value: unknown): value is readonly Message[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((one) => typeof one === 'object' && one !== null && 'role' in one)
  );
}

function textOf(part: { readonly type: string; readonly text?: string }): string {
  if (part.type === 'text' && part.text !== undefined) return part.text;
  throw new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule: 'messages are text',
    given: `a part of type ${part.type}`,
    fix: 'leave pictures and sound away',
  });
}
