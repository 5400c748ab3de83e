/**
 * From what a caller gives to the ids of a prompt. A megabyte takes a second: what is long is read in a worker thread, and
 * what cannot fit the context is refused by its bytes, before it is cut into tokens.
 */
import { TandemError } from '../errors.ts';
import { chatPrompt } from '../text/chat-prompt.ts';
import type { ChatTemplate, RenderOptions } from '../text/chat-template.ts';
import { type ChatMessage, separateReasoning } from '../text/messages.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { Thread } from './thread.ts';
import { aborted, untilAborted } from './until-aborted.ts';

/** Ids of a rendered conversation, and whether the answer starts inside `<think>`. */
export interface PromptIds {
  readonly ids: Int32Array;
  readonly opensThinking: boolean;
}

/** What a conversation is rendered with; all of it can be cloned. */
export type ChatCallOptions = Pick<RenderOptions, 'tools' | 'enableThinking' | 'kwargs'>;

export interface ChatCall {
  readonly messages: readonly ChatMessage[];
  readonly options: ChatCallOptions;
  /** Refuses what surely has more tokens. */
  readonly mostTokens?: number;
}

export interface TextCall {
  readonly text: string;
  readonly options: { readonly addSpecial?: boolean; readonly parseSpecial?: boolean };
  readonly mostTokens?: number;
}

export interface PromptsOptions {
  readonly tokenizer: Tokenizer;
  /** Or why there is none, for whoever wants to chat. */
  readonly template: ChatTemplate | TandemError;
  /** The checkpoint, for a thread to open; absent: everything is read here. */
  readonly path?: string;
  /** Characters from which a thread reads. */
  readonly longFrom?: number;
  readonly idleMs?: number;
}

/** About 15 ms of tokenizing at worst; a thread costs one to ask, and tenths of a second to start. */
const LONG_FROM = 16 << 10;
/** The thread holds a vocabulary: it is ended when nobody asked for so long. */
const IDLE_MS = 120_000;

export class Prompts {
  readonly #options: PromptsOptions;
  #thread: Thread | undefined;
  /** One prompt at a time; those whose caller is gone are skipped. */
  #line: Promise<unknown> = Promise.resolve();
  #idle: ReturnType<typeof setTimeout> | undefined;
  #disposed: TandemError | undefined;

  constructor(options: PromptsOptions) {
    this.#options = options;
  }

  /** At once where it is short, so that what is wrong with it is too. CONTEXT_OVERFLOW, TEMPLATE_INVALID, ABORTED. */
  chat(call: ChatCall, signal?: AbortSignal): PromptIds | Promise<PromptIds> {
    const { template, tokenizer } = this.#options;
    if (template instanceof TandemError) throw template;
    if (this.#isLong([call.messages, call.options])) return this.#apart('chat', call, signal);
    return encodeChat(template, tokenizer, call);
  }

  text(call: TextCall, signal?: AbortSignal): Int32Array | Promise<Int32Array> {
    const { tokenizer } = this.#options;
    refuseTooLong(tokenizer, call.text, call.mostTokens);
    if (this.#isLong(call.text)) return this.#apart('text', call, signal);
    return encodeText(tokenizer, call);
  }

  async dispose(): Promise<void> {
    clearTimeout(this.#idle);
    this.#disposed = new TandemError('DISPOSED', { room: 'engine', rule: 'the engine was disposed' });
    await this.#thread?.end(this.#disposed);
  }

  #isLong(value: unknown): boolean {
    const { path, longFrom = LONG_FROM } = this.#options;
    return path !== undefined && isLonger(value, longFrom);
  }

  #apart<T>(name: string, call: ChatCall | TextCall, signal: AbortSignal | undefined): Promise<T> {
    const answer = this.#line.then(() => {
      if (signal?.aborted) throw aborted(signal);
      return this.#started().call<T>(name, call);
    });
    this.#line = answer.catch(() => {});
    return untilAborted(answer, signal);
  }

  #started(): Thread {
    const { path, idleMs = IDLE_MS } = this.#options;
    if (this.#disposed) throw this.#disposed;
    if (this.#thread === undefined || this.#thread.ended) this.#thread = new Thread('text-thread', { path });
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#rest(), idleMs).unref();
    return this.#thread;
  }

  /** Behind whoever still waits. */
  #rest(): void {
    const thread = this.#thread;
    this.#thread = undefined;
    void this.#line.then(() =>
      thread?.end(new TandemError('DISPOSED', { room: 'engine', rule: 'an idle thread ends' })),
    );
  }
}

/** The prompt of a conversation. */
export function encodeChat(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  { messages, options, mostTokens }: ChatCall,
): PromptIds {
  const check = (text: string) => refuseTooLong(tokenizer, text, mostTokens);
  const { ids, opensThinking } = chatPrompt(template, tokenizer, messages.map(separateReasoning), options, check);
  return { ids: Int32Array.from(ids), opensThinking };
}

export function encodeText(tokenizer: Tokenizer, { text, options }: TextCall): Int32Array {
  return Int32Array.from(tokenizer.encode(text, options));
}

function refuseTooLong({ bytesPerToken }: Tokenizer, text: string, mostTokens = Number.POSITIVE_INFINITY): void {
  if (bytesPerToken === undefined || text.length <= mostTokens) return; // no token is shorter than a byte
  const least = Math.ceil(Buffer.byteLength(text) / bytesPerToken);
  if (least <= mostTokens) return;
  throw new TandemError('CONTEXT_OVERFLOW', {
    room: 'engine',
    rule: `the prompt has at most ${mostTokens} tokens`,
    given: `it has ${text.length} characters, which are more than ${least - 1} tokens`,
    fix: 'shorten it, or load the model with a larger context',
  });
}

/** True where the strings of a value have more than `most` characters, each item counted as one more. */
function isLonger(value: unknown, most: number): boolean {
  const left: unknown[] = [value];
  let length = 0;
  while (left.length > 0 && length <= most) {
    const item = left.pop();
    length++;
    if (typeof item === 'string') length += item.length;
    else if (typeof item === 'object' && item !== null) for (const part of Object.values(item)) left.push(part);
  }
  return length > most;
}
