/** From Anthropic's messages to a conversation and the engine's options. */
import type { ChatOptions } from '../../../engine/generate-options.ts';
import type { ChatMessage, ToolDefinition } from '../../../text/messages.ts';
import { contentText } from '../../content.ts';
import { defined, nonEmpty } from '../../defined.ts';
import { toolOptions } from '../../tools.ts';
import type { Block, CountBody, MessagesBody } from './schema.ts';

export function conversation({ system, messages }: CountBody): ChatMessage[] {
  const head = contentText(system, 'system');
  return [
    ...(head === '' ? [] : [{ role: 'system' as const, content: head }]),
    ...messages.flatMap(({ role, content }, index) => {
      const where = `messages[${index}]`;
      if (typeof content === 'string') return [{ role, content }];
      return role === 'assistant' ? [assistantMessage(content, where)] : userMessages(role, content, where);
    }),
  ];
}

/** Text, thinking and calls of an assistant's blocks in one message. Redacted thinking is nobody's. */
function assistantMessage(blocks: readonly Block[], where: string): ChatMessage {
  const reasoning = blocks.map(({ thinking }) => thinking ?? '').join('');
  const toolCalls = blocks
    .filter(({ type }) => type === 'tool_use')
    .map(({ id, name, input }) => ({
      ...defined({ id }),
      name: name ?? '',
      arguments: JSON.stringify(input ?? {}),
    }));
  const text = blocks.filter(({ type }) => !['thinking', 'redacted_thinking', 'tool_use'].includes(type));
  return {
    role: 'assistant',
    content: contentText(text, where),
    ...(reasoning === '' ? {} : { reasoning }),
    ...(toolCalls.length > 0 ? { toolCalls } : {}),
  };
}

/** Results of tools become messages of their own, before what the user says beside them. */
function userMessages(role: 'user' | 'system', blocks: readonly Block[], where: string): ChatMessage[] {
  const results = blocks
    .filter(({ type }) => type === 'tool_result')
    .map(({ tool_use_id: id, content, is_error: failed }): ChatMessage => {
      const parts = typeof content === 'string' ? content : content?.map(asText);
      const text = contentText(parts, `${where} tool_result`);
      return { role: 'tool', content: failed ? `Error: ${text}` : text, ...defined({ toolCallId: id }) };
    });
  const text = contentText(blocks.filter(({ type }) => type !== 'tool_result').map(asText), where);
  return text === '' && results.length > 0 ? results : [...results, { role, content: text }];
}

/** Documents and results of searches that are text, as text under their title; other blocks as they are. */
function asText(block: Block): Block {
  const { type, title, source, content } = block;
  const text =
    type === 'search_result'
      ? contentText(content, type)
      : type !== 'document' || typeof source !== 'object'
        ? undefined
        : source?.type === 'text'
          ? source.data
          : source?.type === 'content'
            ? contentText(source.content, type)
            : undefined;
  return typeof text === 'string' ? { type: 'text', text: `${title ? `${title}\n` : ''}${text}\n` } : block;
}

/** Server tools of the hosted service (web search …) have no schema and are skipped. */
function toolsOf({ tools }: CountBody): ToolDefinition[] {
  return (tools ?? []).flatMap(({ name, description, input_schema: parameters }) =>
    parameters ? [{ name, parameters, ...defined({ description }) }] : [],
  );
}

/** What shapes the prompt, and so its length. */
export function promptOptions(
  body: CountBody,
): Pick<ChatOptions, 'tools' | 'toolChoice' | 'thinking' | 'thinkingBudget'> {
  const { thinking } = body;
  const budget = thinking?.type === 'disabled' ? undefined : thinking?.budget_tokens;
  return {
    ...toolOptions(toolsOf(body), toolChoice(body)),
    ...(thinking ? { thinking: thinking.type !== 'disabled' && budget !== 0 } : {}),
    ...defined({ thinkingBudget: budget }),
  };
}

export function chatOptions(body: MessagesBody): ChatOptions {
  return {
    ...promptOptions(body),
    ...defined({
      maxTokens: body.max_tokens,
      stop: nonEmpty(body.stop_sequences),
      temperature: body.temperature,
      topK: body.top_k,
      topP: body.top_p === 0 ? 1e-6 : body.top_p,
    }),
  };
}

function toolChoice({ tool_choice: choice }: CountBody): ChatOptions['toolChoice'] {
  switch (choice?.type) {
    case 'any':
      return 'required';
    case 'tool':
      return { name: choice.name ?? '' };
    default:
      return choice?.type;
  }
}
