/** From a chat body to a conversation and the engine's options. */
import type { ChatOptions } from '../../../engine/generate-options.ts';
import type { ChatMessage } from '../../../text/messages.ts';
import { contentText } from '../../content.ts';
import type { ServerOptions } from '../../context.ts';
import { defined } from '../../defined.ts';
import { toolOptions } from '../../tools.ts';
import { toolDefinitions } from '../function-tools.ts';
import type { ChatBody } from './chat-schema.ts';
import { answerLimit, samplingOptions } from './sampling.ts';

export interface ChatJob {
  readonly messages: readonly ChatMessage[];
  readonly options: ChatOptions;
}

export function chatJob(body: ChatBody, server: ServerOptions): ChatJob {
  const separate =
    body.reasoning_format === undefined || body.reasoning_format === null
      ? server.reasoningFormat
      : body.reasoning_format === 'none'
        ? 'none'
        : 'separate';
  const effort = body.reasoning_effort;
  return {
    messages: body.messages.map(chatMessage),
    options: {
      ...samplingOptions(body),
      ...toolOptions(toolDefinitions(body.tools), toolChoice(body)),
      ...defined({
        maxTokens: answerLimit(body.max_completion_tokens ?? body.max_tokens, server),
        logprobs: body.logprobs ? (body.top_logprobs ?? true) : undefined,
        thinking: body.enable_thinking ?? thinkingOf(effort),
        thinkingBudget: body.thinking_budget,
        parse: separate === 'none' ? ('none' as const) : undefined,
        priority: body.priority,
        templateVariables:
          effort || body.chat_template_kwargs
            ? { ...(effort ? { reasoning_effort: effort } : {}), ...body.chat_template_kwargs }
            : undefined,
      }),
    },
  };
}

function thinkingOf(effort: string | null | undefined): boolean | undefined {
  return effort === 'none' ? false : undefined;
}

function chatMessage(message: ChatBody['messages'][number], index: number): ChatMessage {
  const { role, name, tool_calls: calls, tool_call_id: callId } = message;
  const reasoning = message.reasoning_content ?? message.reasoning;
  return {
    role: role === 'developer' ? 'system' : role === 'function' ? 'tool' : role,
    content: contentText(message.content, `messages[${index}]`),
    ...defined({ name, reasoning, toolCallId: callId }),
    ...(calls && calls.length > 0
      ? {
          toolCalls: calls.map(({ id, function: { name, arguments: given } }) => ({
            ...defined({ id }),
            name,
            arguments: typeof given === 'string' ? given || '{}' : JSON.stringify(given ?? {}),
          })),
        }
      : {}),
  };
}

function toolChoice({ tool_choice: choice }: ChatBody): ChatOptions['toolChoice'] {
  if (choice === null || choice === undefined) return undefined;
  if (typeof choice === 'string') return choice;
  return choice.function ? { name: choice.function.name } : 'auto';
}
