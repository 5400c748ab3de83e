/** From a responses body to a conversation and the engine's options. The server keeps no responses: clients send all. */
import type { ChatOptions } from '../../../engine/generate-options.ts';
import { TandemError } from '../../../errors.ts';
import type { ChatMessage, ToolCall } from '../../../text/messages.ts';
import { contentText } from '../../content.ts';
import type { ServerOptions } from '../../context.ts';
import { defined } from '../../defined.ts';
import { toolOptions } from '../../tools.ts';
import type { ResponsesBody, ResponsesItem } from './responses-schema.ts';

export function responsesMessages({
  input,
  instructions,
  previous_response_id: previous,
}: ResponsesBody): ChatMessage[] {
  if (previous)
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'a request brings its whole conversation; responses are not stored',
      given: 'previous_response_id refers to an earlier one',
      fix: 'send the earlier items in input',
    });
  const messages: ChatMessage[] = instructions ? [{ role: 'system', content: instructions }] : [];
  if (typeof input === 'string') return [...messages, { role: 'user', content: input }];
  (input ?? []).forEach((item, index) => {
    add(messages, item, `input[${index}]`);
  });
  // Codex asks with nothing to see whether anybody answers.
  return messages.some(({ role }) => role !== 'system') ? messages : [...messages, { role: 'user', content: 'ping' }];
}

/** Reasoning, calls and text of one turn are items of their own here and one message to a template. */
function add(messages: ChatMessage[], item: ResponsesItem, where: string): void {
  switch (item.type ?? 'message') {
    case 'message':
    case 'agent_message': {
      const role = item.role === 'developer' ? 'system' : (item.role ?? 'user');
      const content = contentText(item.content, where);
      const last = messages.at(-1);
      if (role === 'assistant' && last?.role === 'assistant' && last.content === '' && last.toolCalls === undefined)
        messages[messages.length - 1] = { ...last, content };
      else messages.push({ role, content });
      break;
    }
    case 'reasoning': {
      const parts = [...(typeof item.content === 'string' ? [] : (item.content ?? [])), ...(item.summary ?? [])];
      const reasoning = parts.map(({ text }) => text ?? '').join('');
      if (reasoning !== '') messages.push({ role: 'assistant', content: '', reasoning });
      break;
    }
    case 'function_call': {
      const call: ToolCall = {
        ...defined({ id: item.call_id }),
        name: item.name ?? '',
        arguments: item.arguments || '{}',
      };
      const last = messages.at(-1);
      if (last?.role === 'assistant')
        messages[messages.length - 1] = { ...last, toolCalls: [...(last.toolCalls ?? []), call] };
      else messages.push({ role: 'assistant', content: '', toolCalls: [call] });
      break;
    }
    case 'function_call_output':
      messages.push({
        role: 'tool',
        content: contentText(item.output, where),
        ...defined({ toolCallId: item.call_id }),
      });
      break;
    default: // what hosted tools left behind means nothing to this model
  }
}

export function responsesOptions(body: ResponsesBody, server: ServerOptions): ChatOptions {
  const tools = (body.tools ?? []).flatMap(({ type, name, description, parameters }) =>
    type === 'function' && name ? [{ name, ...defined({ description, parameters }) }] : [],
  );
  const effort = body.reasoning?.effort;
  const format = body.text?.format;
  return {
    ...toolOptions(tools, toolChoice(body.tool_choice)),
    ...defined({
      maxTokens: body.max_output_tokens ?? server.maxTokens,
      temperature: body.temperature,
      topP: body.top_p === 0 ? 1e-6 : body.top_p,
      format:
        format?.type === 'json_object'
          ? ({ type: 'json' } as const)
          : format?.type === 'json_schema'
            ? ({ type: 'schema', schema: format.schema ?? {}, strict: format.strict === true } as const)
            : undefined,
      thinking: effort === 'none' ? false : undefined,
      templateVariables: effort ? { reasoning_effort: effort } : undefined,
    }),
  };
}

function toolChoice(choice: ResponsesBody['tool_choice']): ChatOptions['toolChoice'] {
  if (choice === null || choice === undefined) return undefined;
  if (typeof choice === 'string') return choice;
  return choice.name ? { name: choice.name } : 'auto';
}
