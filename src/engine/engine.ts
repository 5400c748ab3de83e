/**
 * A loaded model that answers. Any number of requests may run at once; they share passes and KV pages and never see
 * each other. Everything is an option of the call; the engine keeps no conversation.
 */
import type { ExpertVisits, SharingCounts } from '../backend/backend.ts';
import { TandemError } from '../errors.ts';
import { PAGE_TOKENS } from '../program/program.ts';
import type { ChatTemplate } from '../text/chat-template.ts';
import type { ChatMessage, ToolCall } from '../text/messages.ts';
import type { CallRequest } from '../text/parsers/call-format.ts';
import type { OutputParser } from '../text/parsers/events.ts';
import { callFormat, parserFor, type ThinkingGate, thinkingGate } from '../text/parsers/index.ts';
import { ChunkSize } from './chunk-size.ts';
import type { EngineInfo, EngineParts } from './engine-parts.ts';
import {
  CHAT_OPTIONS,
  type ChatOptions,
  GENERATE_OPTIONS,
  type GenerateOptions,
  type PromptOptions,
} from './generate-options.ts';
import { Generation, type GenerationSink } from './generation.ts';
import { GrammarCompiler } from './grammar.ts';
import { Guide } from './guide.ts';
import { PagePool } from './kv-cache.ts';
import { disposed, EngineLoop } from './loop.ts';
import { checkOptionNames } from './option-names.ts';
import type { PageStoreStats } from './page-store.ts';
import {
  type Divergence,
  type LogitSource,
  measureDivergence,
  measurePerplexity,
  PERPLEXITY_OPTIONS,
  type Perplexity,
  type PerplexityOptions,
} from './perplexity.ts';
import { PrefixArchive } from './prefix-archive.ts';
import { PrefixCache } from './prefix-cache.ts';
import { type PromptLogprob, promptLogprobs } from './prompt-logprobs.ts';
import { Prompts, type TextCall } from './prompts.ts';
import { LogitsRequest, type Progress, type Request, type TakeLogits, TextRequest } from './request.ts';
import { invalid, numberIn, Sampler, type SamplingDefaults, samplingSettings } from './sampling.ts';
import { Scheduler, type SchedulerStats } from './scheduler.ts';
import { Sequence } from './sequence.ts';
import { aborted } from './until-aborted.ts';

/** One request as it stands between two passes. */
export interface RequestState {
  readonly id: number;
  readonly state: 'running' | 'waiting';
  readonly promptTokens: number;
  /** Tokens whose keys and values are there. */
  readonly computed: number;
  readonly generated: number;
}

export class Engine implements AsyncDisposable {
  readonly info: EngineInfo;
  readonly #parts: EngineParts;
  readonly #scheduler: Scheduler;
  readonly #loop: EngineLoop;
  readonly #grammars: GrammarCompiler;
  readonly #prompts: Prompts;
  readonly #archive: PrefixArchive | undefined;
  #disposing: Promise<void> | undefined;

  /** Use `load`. */
  constructor(parts: EngineParts) {
    const { executable, info, limits } = parts;
    this.#parts = parts;
    this.info = info;
    const { maxRows, targetMs, soloTargetMs, soloMostMs, firstRows } = limits;
    const chunk = new ChunkSize({ minRows: Math.min(16, maxRows), maxRows, firstRows: 64, targetMs });
    // Even a few rows read most experts of a large model: fewer than 64 would cost as long.
    const soloChunk = new ChunkSize({
      minRows: Math.min(64, maxRows),
      maxRows,
      firstRows,
      targetMs: soloTargetMs,
      mostMs: soloMostMs,
    });
    const pool = new PagePool(executable.pages);
    const prefixes = limits.prefixCache === false ? undefined : new PrefixCache(pool);
    this.#scheduler = new Scheduler({ ...limits, pool, chunk, soloChunk, prefixes });
    this.#loop = new EngineLoop(this.#scheduler, executable);
    this.#grammars = new GrammarCompiler(parts.tokenizer, info.vocabSize);
    this.#prompts = new Prompts(parts);
    const { readPage, writePage } = executable;
    if (parts.pageStore && prefixes && readPage && writePage)
      this.#archive = new PrefixArchive(
        parts.pageStore,
        prefixes,
        pool,
        { readPage: readPage.bind(executable), writePage: writePage.bind(executable) },
        () => this.#loop.wake(),
      );
  }

  /** Continues a prompt: text or token ids. Errors come out of the generation, not of this call. */
  generate(prompt: string | Iterable<number>, options: GenerateOptions = {}): Generation {
    return new Generation((sink, waiting) => {
      checkOptionNames('generate', options, GENERATE_OPTIONS);
      const { addSpecial = true, parseSpecial = false } = options;
      checkFlag('addSpecial', addSpecial);
      checkFlag('parseSpecial', parseSpecial);
      checkSignal(options.signal);
      if (typeof prompt !== 'string' && typeof prompt?.[Symbol.iterator] !== 'function')
        throw invalid('the prompt', 'a text, or token ids', prompt);
      const text = { addSpecial, parseSpecial };
      const read = typeof prompt === 'string' ? this.#readText(prompt, text, waiting) : [...prompt];
      return whenRead(read, (ids) => {
        if (options.format === undefined) return this.#start(ids, options, sink);
        return this.#grammars.matcher(options.format, waiting).then((format) => {
          const { tokenizer } = this.#parts;
          const guide = new Guide({ tokenizer, vocabSize: this.info.vocabSize, format });
          return guided(guide, () => this.#start(ids, options, sink, { guide }));
        });
      });
    }, options?.signal);
  }

  /** Answers the last message of a conversation. */
  chat(messages: readonly ChatMessage[], options: ChatOptions = {}): Generation {
    return new Generation((sink, waiting) => {
      checkOptionNames('chat', options, CHAT_OPTIONS);
      const { template, info } = this.#parts;
      if (this.#disposing) throw disposed();
      if (template instanceof TandemError) throw template;
      const {
        tools,
        toolChoice = 'auto',
        thinking: enableThinking,
        thinkingBudget: budget,
        parse = 'separate',
        templateVariables: kwargs,
        ...rest
      } = options;
      if (tools !== undefined && !(Array.isArray(tools) && tools.every((tool) => typeof tool?.name === 'string')))
        throw invalid('tools', 'an array of tools with names', tools);
      checkFlag('thinking', enableThinking);
      checkSignal(options.signal);
      if (parse !== 'separate' && parse !== 'none') throw invalid('parse', 'separate or none', parse);
      if (kwargs !== undefined && (typeof kwargs !== 'object' || kwargs === null))
        throw invalid('templateVariables', 'an object', kwargs);
      const conversation = {
        messages: checkedMessages(messages),
        options: { tools, enableThinking: thinks(enableThinking, budget), kwargs },
        mostTokens: info.contextLength - 1,
      };
      return whenRead(this.#prompts.chat(conversation, waiting), ({ ids, opensThinking }) => {
        const start = (guide?: Guide) => {
          const parser = parserFor({
            template: template.source,
            architecture: info.architecture,
            startInside: opensThinking,
            cut: () => guide?.cut === true,
            reasoning: parse,
            calls: parse,
            tools,
          });
          return this.#start(ids, rest, sink, { parser, guide });
        };
        const gate = thinkingGate(template.source, opensThinking);
        const called = tools && toolChoice !== 'auto' && toolChoice !== 'none';
        if (options.format === undefined && !called && (budget === undefined || gate === undefined)) return start();
        return this.#guide(options, gate, called ? { tools, toolChoice } : undefined, waiting).then((guide) =>
          guided(guide, () => start(guide)),
        );
      });
    }, options?.signal);
  }

  #readText(
    text: string,
    options: TextCall['options'],
    signal: AbortSignal | undefined,
  ): Int32Array | Promise<Int32Array> {
    return this.#prompts.text({ text, options, mostTokens: this.info.contextLength - 1 }, signal);
  }

  async #guide(
    { format, thinkingBudget }: ChatOptions,
    gate: ThinkingGate | undefined,
    calls: CallRequest | undefined,
    waiting: AbortSignal,
  ): Promise<Guide> {
    const { tokenizer, template } = this.#parts;
    if (format !== undefined && calls !== undefined)
      throw invalid('format', 'absent where a tool call is demanded', format, 'ask for one of the two');
    const source = (template as ChatTemplate).source;
    const wanted = calls === undefined ? format : callFormat(source, this.info.architecture, calls);
    const budget = numberIn(
      'thinkingBudget',
      thinkingBudget,
      { low: 0, high: Number.MAX_SAFE_INTEGER, integer: true },
      Infinity,
    );
    const thinks = gate !== undefined && !(wanted?.type === 'calls' && wanted.first);
    return new Guide({
      tokenizer,
      vocabSize: this.info.vocabSize,
      format: wanted === undefined ? undefined : await this.#grammars.matcher(wanted, waiting),
      thinking: thinks
        ? {
            inside: gate.inside,
            open: gate.open === undefined ? undefined : tokenizer.tokenId(gate.open),
            gate: gate.close,
            closing: tokenizer.encode(gate.forced, { parseSpecial: true }),
            budget: thinkingBudget === undefined ? undefined : budget,
          }
        : undefined,
    });
  }

  #start(
    prompt: Ids,
    options: GenerateOptions,
    sink: GenerationSink,
    { parser, guide }: { parser?: OutputParser; guide?: Guide } = {},
  ): (() => void) | Promise<() => void> {
    const { tokenizer, samplingDefaults = {} } = this.#parts;
    const { contextLength, vocabSize } = this.info;
    const { signal, ignoreEos = false } = options;
    checkCallback(options.onProgress);
    checkFlag('ignoreEos', ignoreEos);
    const ids = this.#checkedIds('the prompt', prompt);
    if (ids.length >= contextLength) throw this.#tooLong(ids.length, 'the prompt', contextLength - 1);
    const maxTokens = numberIn(
      'maxTokens',
      options.maxTokens,
      { low: 1, high: Number.MAX_SAFE_INTEGER, integer: true },
      contextLength,
    );
    const settings = samplingSettings(options, samplingDefaults, vocabSize);
    const own = this.#checkedStopTokens(options.stopTokens);
    const sequence = new Sequence({
      prompt: ids,
      maxLen: Math.min(contextLength, ids.length + maxTokens),
      sampler: new Sampler(settings, ids, guide),
      stopTokens: new Set(ignoreEos ? own : [...tokenizer.eosIds, ...own]),
      priority: numberIn('priority', options.priority, { low: -1000, high: 1000 }, 0),
    });
    const request = new TextRequest({
      sequence,
      tokenizer,
      stop: stopStrings(options.stop),
      silent: new Set([...tokenizer.eosIds, ...own]),
      parser,
      onProgress: options.onProgress,
      sink,
      now: performance.now(),
    });
    if (this.#archive === undefined) return this.#submit(request, signal);
    return this.#archive.restore(ids, signal).then(() => this.#submit(request, signal));
  }

  /** Ids of the prompt that `chat` would make of a conversation. */
  async promptTokens(
    messages: readonly ChatMessage[],
    { tools, thinking, thinkingBudget, templateVariables }: PromptOptions = {},
    signal?: AbortSignal,
  ): Promise<Int32Array> {
    const options = { tools, enableThinking: thinks(thinking, thinkingBudget), kwargs: templateVariables };
    const read = this.#prompts.chat({ messages: checkedMessages(messages), options }, signal);
    return (await read).ids;
  }

  /**
   * Logits of every position of `ids`: f32 [T, V], row-major. T·V·4 bytes are held in memory.
   */
  async logits(
    ids: Iterable<number>,
    options: { signal?: AbortSignal; onProgress?: Progress } = {},
  ): Promise<Float32Array> {
    checkOptionNames('logits', options, ['signal', 'onProgress']);
    checkCallback(options.onProgress);
    const { vocabSize } = this.#parts.executable.program;
    const prompt = this.#checkedSequence([...ids]);
    const logits = allocateLogits(prompt.length, vocabSize);
    await this.#stream(prompt, 0, (position, row) => logits.set(row, position * vocabSize), options);
    return logits;
  }

  /** How likely each token of `ids` is after those before it, with the `top` likeliest at its place. */
  async promptLogprobs(
    ids: readonly number[],
    { top = 0, signal }: { top?: number; signal?: AbortSignal } = {},
  ): Promise<PromptLogprob[]> {
    return promptLogprobs(this.#logitSource(), [...this.#checkedSequence(ids)], top, signal);
  }

  /** How well the model predicts a text, or token ids as they are. */
  async perplexity(input: string | Iterable<number>, options: PerplexityOptions = {}): Promise<Perplexity> {
    checkOptionNames('perplexity', options, PERPLEXITY_OPTIONS);
    checkCallback(options.onProgress);
    const { ids, begin } = this.#textToJudge(input);
    return measurePerplexity(this.#logitSource(), ids, begin, options);
  }

  /** How far this model's distributions over a text are from those of `reference`, which has the same vocabulary. */
  async divergence(
    reference: Engine,
    input: string | Iterable<number>,
    options: PerplexityOptions = {},
  ): Promise<Divergence> {
    checkOptionNames('divergence', options, PERPLEXITY_OPTIONS);
    checkCallback(options.onProgress);
    if (!(reference instanceof Engine)) throw invalid('the reference', 'a loaded model', reference);
    const { ids, begin } = this.#textToJudge(input);
    const others = typeof input === 'string' ? reference.#textToJudge(input).ids : ids;
    const [mine, theirs] = [this.info.vocabSize, reference.info.vocabSize];
    if (mine !== theirs || others.length !== ids.length || others.some((id, i) => id !== ids[i]))
      throw new TandemError('REQUEST_INVALID', {
        room: 'engine',
        rule: 'two models are compared over the same tokens',
        given: `${this.info.model} has ${mine} tokens and reads ${ids.length} in the text, ${reference.info.model} ${theirs} and ${others.length}`,
        fix: 'compare with a model that has the same tokenizer',
      });
    return measureDivergence(this.#logitSource(), reference.#logitSource(), ids, begin, options);
  }

  /** Ids, and the begin token where the text starts with one. */
  #textToJudge(input: string | Iterable<number>): { ids: number[]; begin?: number } {
    const { bosId } = this.#parts.tokenizer;
    if (typeof input === 'string') {
      const ids = this.tokenize(input, { addSpecial: true });
      return { ids, begin: ids[0] === bosId ? bosId : undefined };
    }
    if (typeof input?.[Symbol.iterator] !== 'function') throw invalid('the text', 'a string, or token ids', input);
    return { ids: [...this.#checkedIds('the text', [...input])] };
  }

  #logitSource(): LogitSource {
    return {
      contextLength: this.info.contextLength,
      stream: async (ids, from, take, signal) => this.#stream(this.#checkedSequence(ids), from, take, { signal }),
    };
  }

  /** Hands over the logits of positions [from, T), row by row; none is kept. */
  #stream(
    prompt: Int32Array,
    from: number,
    take: TakeLogits,
    { signal, onProgress }: { signal?: AbortSignal; onProgress?: Progress },
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const sequence = new Sequence({
        prompt,
        maxLen: prompt.length,
        sampler: null,
        stopTokens: new Set(),
        logitsFrom: from,
      });
      this.#submit(new LogitsRequest(sequence, take, { resolve, reject }, onProgress), signal);
    });
  }

  #checkedSequence(ids: readonly number[]): Int32Array {
    const { contextLength } = this.info;
    const sequence = this.#checkedIds('ids', ids);
    if (sequence.length > contextLength) throw this.#tooLong(sequence.length, 'the sequence', contextLength);
    return sequence;
  }

  /** Token ids of a text. `addSpecial` defaults to false here: what goes in comes out of `detokenize`. */
  tokenize(text: string, options: { addSpecial?: boolean; parseSpecial?: boolean } = {}): number[] {
    if (typeof text !== 'string') throw invalid('the text', 'a string', text);
    return this.#parts.tokenizer.encode(text, options);
  }

  /** The same, in a worker thread where the text is long. `mostTokens`: refuses what surely has more. */
  async tokenizeApart(
    text: string,
    { mostTokens, ...options }: TextCall['options'] & Pick<TextCall, 'mostTokens'> = {},
    signal?: AbortSignal,
  ): Promise<Int32Array> {
    if (typeof text !== 'string') throw invalid('the text', 'a string', text);
    return this.#prompts.text({ text, options, mostTokens }, signal);
  }

  detokenize(ids: Iterable<number>): string {
    return this.#parts.tokenizer.decode(ids);
  }

  /** Most sequences that run at once. */
  get maxSequences(): number {
    return this.#parts.limits.maxSequences;
  }

  /** How the model wants to be sampled where a request does not say. */
  get samplingDefaults(): SamplingDefaults {
    return this.#parts.samplingDefaults ?? {};
  }

  /** Source of the model's chat template, where it has a valid one. */
  get chatTemplate(): string | undefined {
    const { template } = this.#parts;
    return template instanceof TandemError ? undefined : template.source;
  }

  /** How often each expert was chosen since load; undefined where the backend does not count. */
  expertVisits(): ExpertVisits | undefined {
    if (this.#disposing) throw disposed();
    return this.#parts.executable.expertVisits?.();
  }

  /** What GPUs have computed of experts on the processor since load; undefined where they compute none. */
  sharingCounts(): SharingCounts | undefined {
    return this.#parts.executable.sharingCounts?.();
  }

  /** What runs and waits now, oldest first. */
  requests(): RequestState[] {
    return this.#scheduler.sequences().map(({ order, state, promptLen, computedLen, generatedLen }) => ({
      id: order,
      state: state === 'running' ? state : 'waiting',
      promptTokens: promptLen,
      computed: computedLen,
      generated: generatedLen,
    }));
  }

  stats(): SchedulerStats & { disk?: PageStoreStats } {
    return { ...this.#scheduler.stats, disk: this.#archive?.stats };
  }

  /**
   * Ends what runs (DISPOSED) and frees everything. May be called twice. Prefixes on their way to the disk get `saveMs`
   * milliseconds, default 10 000.
   */
  dispose({ saveMs = SAVE_MS }: { saveMs?: number } = {}): Promise<void> {
    let shared: SharingCounts | undefined;
    this.#disposing ??= this.#loop
      .dispose()
      .then(() => Promise.all([this.#grammars.dispose(), this.#prompts.dispose()]))
      .then(() => this.#archive?.close(saveMs))
      .then(() => {
        shared = this.sharingCounts();
        return this.#parts.executable.dispose();
      })
      .finally(() => this.#parts.close?.(shared));
    return this.#disposing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Queues a request under a signal; returns what aborts it. */
  #submit(request: Request, signal: AbortSignal | undefined): () => void {
    if (this.#disposing) throw disposed();
    checkSignal(signal);
    if (signal?.aborted) throw aborted(signal);
    const abort = () => this.#loop.abort(request, aborted(signal));
    this.#loop.submit(request, () => signal?.removeEventListener('abort', abort));
    signal?.addEventListener('abort', abort);
    return abort;
  }

  #checkedIds(what: string, ids: Ids): Int32Array {
    const { vocabSize } = this.info;
    if (ids.length === 0)
      throw new TandemError('REQUEST_INVALID', {
        room: 'engine',
        rule: `${what} has at least one token`,
        given: 'it is empty',
        fix: 'give some text or token ids',
      });
    ids.forEach((id, index) => {
      if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
        throw invalid(`token ${index} of ${what}`, `an integer in [0, ${vocabSize})`, id);
    });
    return Int32Array.from(ids);
  }

  #checkedStopTokens(ids: readonly number[] = []): readonly number[] {
    if (!Array.isArray(ids)) throw invalid('stopTokens', 'an array of token ids', ids);
    return ids.length === 0 ? ids : [...this.#checkedIds('stopTokens', ids)];
  }

  #tooLong(length: number, what: string, most: number): TandemError {
    const { contextLength, contextLimit } = this.info;
    const fixes = {
      model: 'shorten it; the model was made for no more',
      option: 'shorten it, or load with a larger contextLength',
      memory: `shorten it, or load with a larger KV budget (kvBytes; pages of ${PAGE_TOKENS} tokens)`,
    };
    return new TandemError('CONTEXT_OVERFLOW', {
      room: 'engine',
      rule: `${what} has at most ${most} tokens in a context of ${contextLength}`,
      given: `it has ${length}`,
      fix: fixes[contextLimit],
    });
  }
}

const SAVE_MS = 10_000;

const ROLES = ['system', 'user', 'assistant', 'tool'];

function checkedMessages(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0)
    throw invalid('messages', 'an array of at least one message', messages);
  messages.forEach((message: Partial<ChatMessage> | undefined, index) => {
    const { role, content, reasoning = '', toolCalls = [] } = message ?? {};
    if (!ROLES.includes(role as string)) throw invalid(`messages[${index}].role`, `one of ${ROLES.join(', ')}`, role);
    if (typeof content !== 'string') throw invalid(`messages[${index}].content`, 'a string', content);
    if (typeof reasoning !== 'string') throw invalid(`messages[${index}].reasoning`, 'a string', reasoning);
    const isCall = (call: Partial<ToolCall> | null) =>
      typeof call?.name === 'string' && typeof call.arguments === 'string';
    if (!Array.isArray(toolCalls) || !toolCalls.every(isCall))
      throw invalid(`messages[${index}].toolCalls`, 'an array of calls with name and arguments (JSON text)', toolCalls);
  });
  return messages;
}

/** OUT_OF_MEMORY instead of JavaScript's RangeError. */
function allocateLogits(length: number, vocabSize: number): Float32Array {
  try {
    return new Float32Array(length * vocabSize);
  } catch (cause) {
    throw new TandemError('OUT_OF_MEMORY', {
      room: 'engine',
      rule: 'logits of all positions are held in memory',
      given: `${length} positions × ${vocabSize} tokens take ${length * vocabSize * 4} bytes`,
      fix: 'ask for fewer positions at a time',
      cause,
    });
  }
}

/** Token ids, as callers give them or as they were read. */
type Ids = readonly number[] | Int32Array;

/** Goes on at once where the prompt is read already. */
function whenRead<T, R>(read: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  return read instanceof Promise ? read.then(next) : next(read);
}

/** A budget of no tokens is no thinking, for templates that can be told. */
function thinks(thinking: boolean | undefined, budget: number | undefined): boolean | undefined {
  return thinking ?? (budget === 0 ? false : undefined);
}

/** Who starts under a guide and cannot lets it go. */
async function guided<T>(guide: Guide, start: () => T | Promise<T>): Promise<T> {
  try {
    return await start();
  } catch (error) {
    guide.dispose();
    throw error;
  }
}

function checkFlag(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean') throw invalid(name, 'true or false', value);
}

function checkCallback(onProgress: Progress | undefined): void {
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalid('onProgress', 'a function', onProgress);
}

function stopStrings(stop: GenerateOptions['stop']): string[] {
  if (stop === undefined || stop === null) return [];
  const list = typeof stop === 'string' ? [stop] : stop;
  if (!Array.isArray(list) || list.some((text) => typeof text !== 'string' || text === ''))
    throw invalid('stop', 'a string or an array of strings, none of them empty', list.length === 0 ? '' : stop);
  return list;
}

function checkSignal(signal: AbortSignal | undefined): void {
  if (signal !== undefined && typeof signal?.removeEventListener !== 'function')
    throw invalid('signal', 'an AbortSignal', signal);
}
