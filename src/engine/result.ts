/** What a generation gives: events while it runs, a result when it ends. Types only. */
import type { ToolCall } from '../text/messages.ts';
import type { OutputEvent } from '../text/parsers/events.ts';

/** One piece of a generation, in order of `for await`. */
export type GenerationEvent =
  /** Prompt tokens computed so far, `cached` of them found ready. Ends with done = total. */
  | { readonly type: 'prefill'; readonly done: number; readonly total: number; readonly cached: number }
  /**
   * `text`: of the answer, whole code points, never part of a stop string. `chat` also tells `reasoning` apart, and
   * `tool-call-start`, `-arguments` (fragments that joined are the model's JSON) and `-end`.
   */
  | OutputEvent
  /** Every token as it is drawn, when `logprobs` was asked. Runs ahead of the text. */
  | ({ readonly type: 'token' } & TokenLogprob)
  | { readonly type: 'done'; readonly result: GenerationResult };

export interface TokenLogprob {
  readonly id: number;
  /** The token's own text; U+FFFD where it is part of a code point. */
  readonly text: string;
  /** What it adds to the text; those of several may make one code point. */
  readonly bytes: Uint8Array;
  /** Natural logarithm of its probability before temperature, penalties and bias. */
  readonly logprob: number;
  /** Best alternatives, best first, as many as asked. */
  readonly top: readonly Pick<TokenLogprob, 'id' | 'text' | 'bytes' | 'logprob'>[];
}

export interface Usage {
  readonly promptTokens: number;
  /** Of these, tokens whose keys and values were there already. */
  readonly cachedTokens: number;
  /** Tokens drawn, the one that ended the text included. */
  readonly completionTokens: number;
  /** Of these, tokens of the thinking. */
  readonly reasoningTokens: number;
  readonly totalTokens: number;
}

/** Milliseconds since the call, and rates. A rate of nothing is 0. */
export interface Timings {
  /** Until the first pass with a row of this request. */
  readonly queueMs: number;
  /** From there to the first token. */
  readonly promptMs: number;
  readonly promptTokensPerSecond: number;
  /** From the first token to the last. */
  readonly generationMs: number;
  /** Tokens after the first one, over `generationMs`. */
  readonly tokensPerSecond: number;
  /** From the call to the first token. */
  readonly timeToFirstTokenMs: number;
  readonly totalMs: number;
}

export interface GenerationResult {
  /** The answer; for `chat` without reasoning and tool calls. */
  readonly text: string;
  readonly reasoning: string;
  /** `arguments` is JSON text as the model wrote it. */
  readonly toolCalls: readonly Required<ToolCall>[];
  /** Every id drawn, the one that ended the text included. */
  readonly tokens: readonly number[];
  /** `stop`: the model or a stop string ended it; `length`: maxTokens or the context did; `abort`: somebody else did. */
  readonly finishReason: 'stop' | 'length' | 'abort';
  /** The stop string that was met. */
  readonly stopString?: string;
  readonly usage: Usage;
  readonly timings: Timings;
  /** The one in effect: the option's, else the model's own, else 0. */
  readonly temperature: number;
  /** The seed given or chosen. With the same prompt and options it gives the same text. */
  readonly seed: number | bigint;
  /** One per token, when asked. */
  readonly logprobs?: readonly TokenLogprob[];
}
