/** From Anthropic's messages to a conversation and the engine's options. */
import type { ChatOptions } from '../../../engine/engine.ts';
import type { ChatMessage, ToolDefinition } from '../../../text/messages.ts';
import { contentText } from '../../content.ts';
import { defined } from '../../defined.ts';
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
      const text = contentText(content, `${where} tool_result`);
      return { role: 'tool', content: failed ? `Error: ${text}` : text, ...defined({ toolCallId: id }) };
    });
  const text = contentText(
    blocks.filter(({ type }) => type !== 'tool_result'),
    where,
  );
  return text === '' && results.length > 0 ? results : [...results, { role, content: text }];
}

/** Server tools of the hosted service (web search …) have no schema and are skipped. */
export function toolsOf({ tools }: CountBody): ToolDefinition[] {
  return (tools ?? []).flatMap(({ name, description, input_schema: parameters }) =>
    parameters ? [{ name, parameters, ...defined({ description }) }] : [],
  );
}

export function chatOptions(body: MessagesBody): ChatOptions {
  const tools = toolsOf(body);
  const choice = body.tool_choice;
  const offered = tools.length > 0 && choice?.type !== 'none';
  return defined({
    maxTokens: body.max_tokens,
    stop: body.stop_sequences,
    temperature: body.temperature,
    topK: body.top_k,
    topP: body.top_p === 0 ? 1e-6 : body.top_p,
    tools: offered ? tools : undefined,
    toolChoice: offered ? demanded(choice) : undefined,
    thinking: body.thinking === null || body.thinking === undefined ? undefined : body.thinking.type !== 'disabled',
    thinkingBudget: body.thinking?.budget_tokens,
  });
}

function demanded(choice: MessagesBody['tool_choice']): ChatOptions['toolChoice'] {
  if (choice?.type === 'any') return 'required';
  return choice?.type === 'tool' && choice.name ? { name: choice.name } : undefined;
}
