/**
 * Chat templates: messages in, one prompt text out, by the Jinja template that comes with the model.
 *
 * Templates differ in what they accept (arguments of tool calls as JSON or as an object, content `none` or ''), so
 * the first render with tool calls tries a small conversation and keeps the style that shows the call.
 */
import { Template } from '@huggingface/jinja';
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import {
  type ChatMessage,
  type MessageStyle,
  type ToolDefinition,
  toTemplateMessage,
  toTemplateTool,
} from './messages.ts';

export interface ChatTemplateOptions {
  /** Jinja source; or several by name, of which `default` and `tool_use` are used. */
  readonly source: string | Readonly<Record<string, string>>;
  readonly bosToken?: string;
  readonly eosToken?: string;
}

export interface RenderOptions {
  readonly tools?: readonly ToolDefinition[];
  /** End with the beginning of an assistant message. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Given to the template as `enable_thinking` and `thinking`; what it does is the template's. */
  readonly enableThinking?: boolean;
  /** Further variables of the template (`chat_template_kwargs`); they win over the others. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
  /** Applied to each translated message, to each tool and to `kwargs`, as the template is about to see them. */
  readonly protect?: <T>(value: T) => T;
}

/** Content and arguments in the order in which most templates want them. */
const STYLES: readonly MessageStyle[] = [
  { argumentObjects: false, emptyAsNone: false },
  { argumentObjects: true, emptyAsNone: false },
  { argumentObjects: false, emptyAsNone: true },
  { argumentObjects: true, emptyAsNone: true },
];

const PROBE = { key: 'tandem_key', name: 'tandem_probe' };

export class ChatTemplate {
  /** Source used without tools. */
  readonly source: string;
  private readonly plain: ParsedTemplate;
  private readonly withTools: ParsedTemplate;
  private readonly tokens: Readonly<Record<string, string>>;

  private constructor({ source, bosToken, eosToken }: ChatTemplateOptions) {
    const named = typeof source === 'string' ? { default: source } : source;
    this.source = named.default ?? Object.values(named)[0] ?? '';
    this.tokens = {
      ...(bosToken === undefined ? {} : { bos_token: bosToken }),
      ...(eosToken === undefined ? {} : { eos_token: eosToken }),
    };
    this.plain = new ParsedTemplate(this.source, this.tokens);
    const toolSource = named.tool_use ?? this.source;
    this.withTools = toolSource === this.source ? this.plain : new ParsedTemplate(toolSource, this.tokens);
  }

  /** Parses. Throws TEMPLATE_INVALID. */
  static create(options: ChatTemplateOptions): ChatTemplate {
    return new ChatTemplate(options);
  }

  /** The prompt of a conversation. Throws TEMPLATE_INVALID with the template's own message where it refuses. */
  render(
    messages: readonly ChatMessage[],
    { tools = [], addGenerationPrompt = true, enableThinking, kwargs, protect = (value) => value }: RenderOptions = {},
  ): string {
    const template = tools.length > 0 ? this.withTools : this.plain;
    const calls = messages.some(({ toolCalls }) => (toolCalls?.length ?? 0) > 0);
    const style = calls ? template.style() : STYLES[0];
    return template.render(
      // The role decides the template's branch and is no text of anybody.
      messages.map((message) => ({ ...protect(toTemplateMessage(message, style)), role: message.role })),
      {
        // As in transformers: `none`, not undefined, where there are no tools.
        tools: tools.length > 0 ? tools.map((tool) => protect(toTemplateTool(tool))) : null,
        add_generation_prompt: addGenerationPrompt,
        ...(enableThinking === undefined ? {} : { enable_thinking: enableThinking, thinking: enableThinking }),
        ...protect(kwargs),
      },
    );
  }
}

class ParsedTemplate {
  private readonly template: Template;
  private readonly tokens: Readonly<Record<string, string>>;
  private known?: MessageStyle;

  constructor(source: string, tokens: Readonly<Record<string, string>>) {
    this.tokens = tokens;
    try {
      this.template = new Template(source);
    } catch (cause) {
      throw invalid('a chat template is a Jinja template', cause, 'fix the template, or pass another one');
    }
  }

  render(messages: Record<string, unknown>[], variables: Record<string, unknown>): string {
    try {
      return this.template.render({ ...this.tokens, ...variables, messages });
    } catch (cause) {
      throw invalid(
        'the chat template accepts the conversation',
        cause,
        'change the messages, or pass another template',
      );
    }
  }

  /** How this template wants tool calls: the first style in which the call is shown, and not as a quoted string. */
  style(): MessageStyle {
    this.known ??= STYLES.find((style) => this.shows(style)) ?? STYLES[0];
    return this.known;
  }

  private shows(style: MessageStyle): boolean {
    const call = { id: 'call00000', name: PROBE.name, arguments: `{"${PROBE.key}": "x"}` };
    const conversation: ChatMessage[] = [
      { role: 'user', content: 'x' },
      { role: 'assistant', content: '', toolCalls: [call] },
      { role: 'tool', content: 'x', toolCallId: call.id, name: call.name },
    ];
    try {
      const text = this.template.render({
        ...this.tokens,
        messages: conversation.map((message) => toTemplateMessage(message, style)),
        tools: [toTemplateTool({ name: 'other' })],
        add_generation_prompt: true,
      });
      return text.includes(PROBE.name) && text.includes(PROBE.key) && !text.includes(`\\"${PROBE.key}`);
    } catch {
      return false;
    }
  }
}

/**
 * The template of a checkpoint: `chat_template.jinja`, else tokenizer_config.json's `chat_template` (one or several by
 * name), else GGUF's `tokenizer.chat_template`. Throws TEMPLATE_INVALID where there is none.
 */
export async function createChatTemplate(
  checkpoint: Checkpoint,
  tokenizer: { readonly bosToken?: string; readonly eosToken?: string },
): Promise<ChatTemplate> {
  const source = await findTemplate(checkpoint);
  if (source === undefined) {
    throw new TandemError('TEMPLATE_INVALID', {
      room: 'text',
      rule: 'a chat needs the chat template of the model',
      given: `${checkpoint.name} has none`,
      fix: 'pass a template, or complete text without one',
    });
  }
  return ChatTemplate.create({ source, bosToken: tokenizer.bosToken, eosToken: tokenizer.eosToken });
}

async function findTemplate(checkpoint: Checkpoint): Promise<string | Record<string, string> | undefined> {
  if (checkpoint.kind === 'gguf') {
    const source = checkpoint.metadata.get('tokenizer.chat_template');
    const toolUse = checkpoint.metadata.get('tokenizer.chat_template.tool_use');
    if (typeof source !== 'string') return undefined;
    return typeof toolUse === 'string' ? { default: source, tool_use: toolUse } : source;
  }
  const file = await checkpoint.chatTemplateFile?.();
  if (file !== undefined) return file;
  const declared = (await checkpoint.tokenizerConfig?.())?.chat_template;
  if (typeof declared === 'string') return declared;
  if (!Array.isArray(declared)) return undefined;
  const named = (declared as (Partial<Record<string, unknown>> | null)[]).flatMap((one) =>
    typeof one?.name === 'string' && typeof one.template === 'string' ? [[one.name, one.template] as const] : [],
  );
  return named.length === 0 ? undefined : Object.fromEntries(named);
}

/** True when a rendered prompt ends inside `<think>`: the answer starts with reasoning. */
export function opensThinking(prompt: string): boolean {
  return prompt.trimEnd().endsWith('<think>');
}

function invalid(rule: string, cause: unknown, fix: string): TandemError {
  const given = `it says: ${cause instanceof Error ? cause.message : String(cause)}`;
  return new TandemError('TEMPLATE_INVALID', { room: 'text', rule, given, fix, cause });
}
