/** Asking: one answer at a time streams into its conversation, whichever is shown meanwhile. */
import { signal } from '@preact/signals';
import { type Conversation, type Message, newId, type ToolCall, titleOf } from './conversation.ts';
import {
  changeConversation,
  changeMessage,
  conversations,
  currentId,
  startConversation,
  touch,
} from './conversations.ts';
import { chosen } from './models.ts';
import { settings, settingsFields } from './settings.ts';
import { type ChatChunk, ServerFailure, streamChat } from './wire.ts';
import { words } from './words.ts';

export interface Running {
  readonly conversationId: string;
  readonly messageId: string;
  readonly stop: () => void;
  /** How far the prompt is read. */
  readonly progress?: NonNullable<ChatChunk['prompt_progress']>;
  /** Pieces a second since the first one; a piece is a token, mostly. */
  readonly speed?: number;
}

export const running = signal<Running | undefined>(undefined);

/** Between two writes of a running answer into the database. */
const KEEP_MS = 2000;
/** Between two looks at the speed: figures that flicker are not read. */
const SPEED_MS = 500;

export function ask(text: string): void {
  const id = conversations.value.some((one) => one.id === currentId.value)
    ? currentId.value
    : startConversation(titleOf(text));
  changeConversation(id, (old) => ({
    ...old,
    messages: [...old.messages, { id: newId(), role: 'user', content: text }],
  }));
  void answer(id);
}

/** Another question in the place of an old one; what followed the old one goes. */
export function editQuestion(id: string, messageId: string, text: string): void {
  changeConversation(id, (old) => {
    const at = old.messages.findIndex((message) => message.id === messageId);
    return {
      ...old,
      title: at === 0 && old.title === titleOf(old.messages[0].content) ? titleOf(text) : old.title,
      messages: [...old.messages.slice(0, at), { id: newId(), role: 'user', content: text }],
    };
  });
  void answer(id);
}

export function regenerate(id: string, messageId: string): void {
  changeConversation(id, (old) => ({
    ...old,
    messages: old.messages.slice(
      0,
      old.messages.findIndex((message) => message.id === messageId),
    ),
  }));
  void answer(id);
}

export function stop(): void {
  running.value?.stop();
}

/** The messages as the server takes them; answers that failed before their first word are left out. */
function requestMessages({ messages }: Conversation): object[] {
  const { system } = settings.value;
  return [
    ...(system.trim() === '' ? [] : [{ role: 'system', content: system }]),
    ...messages
      .filter(({ role, content, toolCalls }) => role === 'user' || content !== '' || toolCalls)
      .map(({ role, content, reasoning, toolCalls }) => ({
        role,
        content,
        ...(reasoning ? { reasoning_content: reasoning } : {}),
        ...(toolCalls
          ? {
              tool_calls: toolCalls.map(({ id, name, arguments: json }) => ({
                id,
                type: 'function',
                function: { name, arguments: json },
              })),
            }
          : {}),
      })),
  ];
}

async function answer(id: string): Promise<void> {
  stop();
  const asked = conversations.value.find((one) => one.id === id)!;
  const abort = new AbortController();
  const model = chosen.value?.id;
  let message: Message = { id: newId(), role: 'assistant', content: '', model };
  changeConversation(id, (old) => ({ ...old, messages: [...old.messages, message] }));
  touch(id);
  running.value = { conversationId: id, messageId: message.id, stop: () => abort.abort() };
  const tell = (news: Pick<Running, 'progress' | 'speed'>) => {
    if (running.value?.messageId === message.id) running.value = { ...running.value, ...news };
  };

  let kept = performance.now();
  let frame = 0;
  const show = () => {
    frame = 0;
    const keep = performance.now() - kept > KEEP_MS;
    if (keep) kept = performance.now();
    changeMessage(id, message.id, () => message, keep);
  };
  let thinkingSince: number | undefined;
  let first: number | undefined;
  let told = 0;
  let pieces = 0;
  try {
    const body = { model, messages: requestMessages(asked), ...settingsFields() };
    for await (const chunk of streamChat(body, abort.signal)) {
      const now = performance.now();
      const delta = chunk.choices?.[0]?.delta;
      if (chunk.prompt_progress) tell({ progress: chunk.prompt_progress });
      if (delta?.content || delta?.reasoning_content) {
        first ??= told = now;
        if (now - told > SPEED_MS && now > first) {
          told = now;
          tell({ speed: pieces / ((now - first) / 1000) });
        }
        pieces++;
      }
      if (delta?.reasoning_content) thinkingSince ??= now;
      message = withChunk(message, chunk);
      const thinks = thinkingSince !== undefined && message.content === '' && !message.toolCalls;
      if (thinks) message = { ...message, thinkingMs: now - thinkingSince! };
      frame ||= requestAnimationFrame(show);
    }
  } catch (error) {
    if (abort.signal.aborted) message = { ...message, finish: 'stopped' };
    else message = { ...message, error: error instanceof ServerFailure ? error.message : words.value.broken };
  }
  cancelAnimationFrame(frame);
  changeMessage(id, message.id, () => message);
  if (running.value?.messageId === message.id) running.value = undefined;
}

function withChunk(message: Message, { choices, timings }: ChatChunk): Message {
  const choice = choices?.[0];
  const { content, reasoning_content: reasoning, tool_calls: fragments } = choice?.delta ?? {};
  return {
    ...message,
    content: message.content + (content ?? ''),
    ...(reasoning ? { reasoning: (message.reasoning ?? '') + reasoning } : {}),
    ...(fragments ? { toolCalls: withFragments(message.toolCalls ?? [], fragments) } : {}),
    ...(choice?.finish_reason ? { finish: choice.finish_reason } : {}),
    ...(timings ? { timings } : {}),
  };
}

type Fragments = NonNullable<NonNullable<NonNullable<ChatChunk['choices']>[0]['delta']>['tool_calls']>;

function withFragments(calls: readonly ToolCall[], fragments: Fragments): ToolCall[] {
  const next = [...calls];
  for (const { index, id, function: part } of fragments) {
    const old = next[index] ?? { id: '', name: '', arguments: '' };
    next[index] = {
      id: id ?? old.id,
      name: part?.name ?? old.name,
      arguments: old.arguments + (part?.arguments ?? ''),
    };
  }
  return next;
}
