/**
 * Chat messages as the engine and the HTTP dialects speak them, and their translation into what chat templates read
 * (Hugging Face's names: `reasoning_content`, `thinking`, `tool_calls`, `tool_call_id`).
 */

export type ChatRole = 'system' | 'user' | 'assistant' | 'tool';

export interface ToolCall {
  readonly id?: string;
  readonly name: string;
  /** JSON as the model wrote it; a call without arguments has `{}`. */
  readonly arguments: string;
}

export interface ChatMessage {
  readonly role: ChatRole;
  readonly content: string;
  /** What an assistant thought before this answer. */
  readonly reasoning?: string;
  /** Calls an assistant made. */
  readonly toolCalls?: readonly ToolCall[];
  /** The call that a tool message answers. */
  readonly toolCallId?: string;
  /** Name of the tool (role tool) or of the speaker. */
  readonly name?: string;
}

/** A tool as in the OpenAI API: `parameters` is a JSON Schema. */
export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
}

/** What a template wants of assistant messages with tool calls; `chat-template.ts` finds out by trying. */
export interface MessageStyle {
  /** `arguments` as an object rather than as its JSON. */
  readonly argumentObjects: boolean;
  /** `none` rather than '' as the content beside tool calls. */
  readonly emptyAsNone: boolean;
}

/** Translates a message for a template. Arguments that are no JSON object stay a string. */
export function toTemplateMessage(message: ChatMessage, style: MessageStyle): Record<string, unknown> {
  const calls = message.toolCalls ?? [];
  const out: Record<string, unknown> = { role: message.role, content: message.content };
  if (calls.length > 0) {
    if (style.emptyAsNone && message.content === '') out.content = null;
    out.tool_calls = calls.map(({ id, name, arguments: json }) => ({
      ...(id === undefined ? {} : { id }),
      type: 'function',
      function: { name, arguments: style.argumentObjects ? parseObject(json) : json },
    }));
  }
  if (message.reasoning !== undefined) {
    out.reasoning_content = message.reasoning;
    // gpt-oss's own name; its template refuses a message with calls that has content too.
    if (calls.length === 0 || message.content === '') out.thinking = message.reasoning;
  }
  if (message.toolCallId !== undefined) out.tool_call_id = message.toolCallId;
  if (message.name !== undefined) out.name = message.name;
  return out;
}

export function toTemplateTool(tool: ToolDefinition): Record<string, unknown> {
  const { name, description = '', parameters: given = {} } = tool;
  // Templates walk through `properties` without asking whether there are any.
  const parameters = 'properties' in given ? given : { type: 'object', properties: {}, ...given };
  return { type: 'function', function: { name, description, parameters } };
}

/**
 * Takes reasoning that a client sent back inside the content of an assistant message (`<think>…</think>`, or Open
 * WebUI's `<details type="reasoning">…</details>`) out into `reasoning`. Other messages come back as they are.
 */
export function separateReasoning(message: ChatMessage): ChatMessage {
  if (message.role !== 'assistant') return message;
  const match = /^\s*(?:<think>([\s\S]*?)<\/think>|<details type="reasoning"[^>]*>([\s\S]*?)<\/details>)\s*/.exec(
    message.content,
  );
  if (match === null) return message;
  const quoted = match[2]
    ?.replace(/<summary>[\s\S]*?<\/summary>/, '')
    .trim()
    .replace(/^(?:>|&gt;) ?/gm, '');
  const reasoning = message.reasoning ?? (match[1] ?? quoted ?? '').trim();
  return { ...message, content: message.content.slice(match[0].length), reasoning };
}

function parseObject(json: string): unknown {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null ? value : json;
  } catch {
    return json;
  }
}
