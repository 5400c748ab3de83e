/** A sequence with somebody waiting for it: what the engine loop tells a request, and the two kinds there are. */

import { Detokenizer } from '../text/detokenizer.ts';
import type { OutputEvent, OutputParser } from '../text/parsers/events.ts';
import { StopMatcher } from '../text/stop-matcher.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { GenerationSink } from './generation.ts';
import type { GenerationResult, TokenLogprob } from './result.ts';
import type { Outcome } from './scheduler.ts';
import type { Sequence } from './sequence.ts';

export interface Request {
  readonly sequence: Sequence;
  /** A pass with rows of it begins. */
  started(now: number): void;
  /** A pass got it further. True: it wants no more, whatever the sequence says. */
  advance(outcome: Outcome, now: number): boolean;
  /** The sequence came to its end. `finish` and `fail` settle the request whatever happens and never throw. */
  finish(now: number): void;
  fail(error: unknown, now: number): void;
}

export type Progress = (progress: { done: number; total: number }) => void;

export interface TextRequestOptions {
  readonly sequence: Sequence;
  readonly tokenizer: Tokenizer;
  readonly stop: readonly string[];
  /** Ids that leave no text: those that end a generation. */
  readonly silent: ReadonlySet<number>;
  /** Absent: everything is text. */
  readonly parser?: OutputParser;
  readonly onProgress?: Progress;
  readonly sink: GenerationSink;
  readonly now: number;
}

/** Drawn tokens become text, text becomes events. */
export class TextRequest implements Request {
  readonly sequence: Sequence;
  readonly #options: TextRequestOptions;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopMatcher;
  readonly #logprobs: TokenLogprob[] | undefined;
  readonly #calls: { id: string; name: string; arguments: string }[] = [];
  #text = '';
  #reasoning = '';
  #reasoningTokens = 0;
  #inReasoning = false;
  #stopString: string | undefined;
  #startedAt = Number.NaN;
  #firstTokenAt = Number.NaN;
  #lastTokenAt = Number.NaN;

  constructor(options: TextRequestOptions) {
    this.#options = options;
    this.sequence = options.sequence;
    this.#detokenizer = new Detokenizer(options.tokenizer);
    this.#stops = new StopMatcher(options.stop);
    if (this.sequence.sampler!.settings.topLogprobs >= 0) this.#logprobs = [];
  }

  started(now: number): void {
    if (!Number.isNaN(this.#startedAt)) return;
    this.#startedAt = now;
    this.#progress(this.sequence.cachedLen);
  }

  advance(outcome: Outcome, now: number): boolean {
    const { sequence, tokenizer, silent, sink } = this.#options;
    // A recomputation after preemption is nobody's progress.
    if (outcome.kind === 'prefill' && sequence.generatedLen === 0) this.#progress(sequence.computedLen);
    if (outcome.kind !== 'token') return false;
    const { token, logprob, top } = outcome;
    if (sequence.generatedLen === 1) {
      this.#firstTokenAt = now;
      this.#progress(sequence.promptLen);
    }
    this.#lastTokenAt = now;
    if (this.#logprobs) {
      const told = (id: number) => ({ text: tokenizer.decode([id]), bytes: tokenizer.tokenBytes(id) });
      const entry = {
        id: token,
        ...told(token),
        logprob,
        top: Array.from(top.tokens, (id, i) => ({ id, ...told(id), logprob: top.logprobs[i] })),
      };
      this.#logprobs.push(entry);
      sink.emit({ type: 'token', ...entry });
    }
    if (!silent.has(token)) this.#take(this.#detokenizer.push(token));
    if (this.#inReasoning) this.#reasoningTokens++;
    return this.#stopString !== undefined;
  }

  finish(now: number): void {
    const { sink } = this.#options;
    try {
      this.#flush();
      sink.finish(this.#result(now, this.#stopString === undefined ? this.sequence.finish! : 'stop'));
    } catch (error) {
      sink.fail(error);
    }
  }

  fail(error: unknown, now: number): void {
    const { sink } = this.#options;
    let partial: GenerationResult | undefined;
    try {
      this.#flush();
      partial = this.#result(now, 'abort');
    } catch {} // what failed first is what counts
    sink.fail(error, partial);
  }

  #progress(done: number): void {
    const total = this.sequence.promptLen;
    this.#options.sink.emit({ type: 'prefill', done, total, cached: this.sequence.cachedLen });
    this.#options.onProgress?.({ done, total });
  }

  /** Decoded text on its way through stop strings and parser. */
  #take(decoded: string): void {
    if (decoded === '') return;
    const { text, stop } = this.#stops.push(decoded);
    this.#stopString = stop;
    this.#parse(text);
  }

  #flush(): void {
    this.#take(this.#detokenizer.flush());
    this.#parse(this.#stops.flush());
    this.#emit(this.#options.parser?.finish() ?? []);
  }

  #parse(text: string): void {
    if (text !== '') this.#emit(this.#options.parser?.push(text) ?? [{ type: 'text', text }]);
  }

  #emit(events: readonly OutputEvent[]): void {
    for (const event of events) {
      this.#inReasoning = event.type === 'reasoning';
      if (event.type === 'text') this.#text += event.text;
      else if (event.type === 'reasoning') this.#reasoning += event.text;
      else if (event.type === 'tool-call-start')
        this.#calls[event.index] = { id: event.id, name: event.name, arguments: '' };
      else if (event.type === 'tool-call-arguments') this.#calls[event.index].arguments += event.fragment;
      this.#options.sink.emit(event);
    }
  }

  #result(now: number, finishReason: GenerationResult['finishReason']): GenerationResult {
    const { sequence } = this;
    const { now: calledAt } = this.#options;
    const startedAt = Number.isNaN(this.#startedAt) ? now : this.#startedAt;
    const firstAt = Number.isNaN(this.#firstTokenAt) ? now : this.#firstTokenAt;
    const lastAt = Number.isNaN(this.#lastTokenAt) ? firstAt : this.#lastTokenAt;
    const { promptLen, generatedLen } = sequence;
    return {
      text: this.#text,
      reasoning: this.#reasoning,
      toolCalls: this.#calls,
      tokens: [...sequence.tokens(promptLen)],
      finishReason,
      stopString: this.#stopString,
      usage: {
        promptTokens: promptLen,
        cachedTokens: sequence.cachedLen,
        completionTokens: generatedLen,
        reasoningTokens: this.#reasoningTokens,
        totalTokens: promptLen + generatedLen,
      },
      timings: {
        queueMs: startedAt - calledAt,
        promptMs: firstAt - startedAt,
        promptTokensPerSecond: generatedLen > 0 ? rate(promptLen - sequence.cachedLen, firstAt - startedAt) : 0,
        generationMs: lastAt - firstAt,
        tokensPerSecond: rate(generatedLen - 1, lastAt - firstAt),
        timeToFirstTokenMs: firstAt - calledAt,
        totalMs: now - calledAt,
      },
      temperature: Number(sequence.sampler!.settings.temperature.toPrecision(7)), // an f32
      seed: sequence.sampler!.settings.seed,
      logprobs: this.#logprobs,
    };
  }
}

function rate(count: number, milliseconds: number): number {
  return count > 0 && milliseconds > 0 ? (count * 1000) / milliseconds : 0;
}

/** Takes the logits [V] of one position. */
export type TakeLogits = (position: number, logits: Float32Array) => void;

/** Hands over the logits of every position that is wanted, in order, as passes make them. */
export class LogitsRequest implements Request {
  readonly sequence: Sequence;
  readonly #take: TakeLogits;
  readonly #onProgress: Progress | undefined;
  readonly #settle: { resolve: () => void; reject: (error: unknown) => void };

  constructor(
    sequence: Sequence,
    take: TakeLogits,
    settle: { resolve: () => void; reject: (error: unknown) => void },
    onProgress?: Progress,
  ) {
    this.sequence = sequence;
    this.#take = take;
    this.#settle = settle;
    this.#onProgress = onProgress;
  }

  started(): void {}

  advance(outcome: Outcome): boolean {
    if (outcome.kind === 'logits') {
      const { position, data } = outcome;
      const rows = outcome.sequence.outputFrom - position;
      const columns = data.length / rows;
      for (let row = 0; row < rows; row++)
        this.#take(position + row, data.subarray(row * columns, (row + 1) * columns));
      this.#onProgress?.({ done: outcome.sequence.outputFrom, total: this.sequence.length });
    }
    return false;
  }
  finish(): void {
    this.#settle.resolve();
  }
  fail(error: unknown): void {
    this.#settle.reject(error);
  }
}
