/**
 * Forms that output keeps, as masks over the vocabulary: which tokens may come next so that the text can still become valid.
 * Forms are compiled and followed in worker threads, because nobody can tell how long one takes: `[a-z ]{1,200}` takes
 * seconds over a large vocabulary.
 *
 *     form ──▶ trial ── quick ──▶ home       where all quick forms live; it has one stall of at most QUICK_MS a form
 *                │ └──── slow ──▶ apart      the trial thread itself becomes the home of this one form
 *                └─ beyond LIMIT_MS, or too much memory: the thread ends, the form is refused
 */
import { TandemError } from '../errors.ts';
import type { CallFormat } from '../text/parsers/call-format.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { BeginCall, CompileCall, TokenTexts } from './grammar-thread.ts';
import { unfollowed } from './schema-limits.ts';
import { Thread } from './thread.ts';
import { aborted, untilAborted } from './until-aborted.ts';

/** A form that output keeps: any JSON, JSON of a schema, a regular expression, or a grammar in EBNF with a rule `root`. */
export type OutputFormat =
  | { readonly type: 'json' }
  | {
      readonly type: 'schema';
      readonly schema: boolean | Readonly<Record<string, unknown>>;
      /** Refuse a schema with demands that cannot be followed, rather than follow the others. Default false. */
      readonly strict?: boolean;
    }
  | { readonly type: 'regex'; readonly pattern: string }
  | { readonly type: 'ebnf'; readonly grammar: string };

/** Follows one output. */
export interface FormatMatcher {
  /** True when `mask` is that of the current state. */
  readonly ready: boolean;
  /** Resolves when `ready`; rejects where the output left the form. */
  readonly settled: Promise<void>;
  /** Bit t of word t >> 5: token t may come next. Valid while `ready`. */
  readonly mask: Uint32Array;
  accept(token: number): void;
  dispose(): void;
}

export interface GrammarOptions {
  /** Milliseconds that compiling a form may take. */
  readonly limitMs?: number;
  /** A form that took longer gets a thread of its own. */
  readonly quickMs?: number;
}

const LIMIT_MS = 20_000;
const QUICK_MS = 1000;
/** Threads of slow forms: each holds a vocabulary. */
const MOST_APART = 3;
/** Compiled forms are kept: agents send the same schema with every request. */
const KEPT = 64;
/** Characters of a form. */
const MOST_TEXT = 1 << 20;
/** Tokens spelled between two turns of the event loop. */
const SPELLED_AT_ONCE = 4096;

/** A compiled form and the thread that has it. */
interface Form {
  readonly id: number;
  readonly home: Home;
}

/** A form that requests ask for. */
interface Wanted {
  readonly compiling: Promise<Form>;
  compiled?: Form;
  /** Requests that wait for it now. */
  waiting: number;
}

/** A thread and who lives in it. */
interface Home {
  readonly thread: Thread;
  matchers: number;
}

/** Compiles forms for one vocabulary. */
export class GrammarCompiler {
  readonly #tokenizer: Tokenizer;
  readonly #vocabSize: number;
  readonly #limitMs: number;
  readonly #quickMs: number;
  readonly #forms = new Map<string, Wanted>();
  #texts: Promise<TokenTexts> | undefined;
  #trial: Home | undefined;
  #home: Home | undefined;
  #apart: Home[] = [];
  /** Forms are tried one after the other. */
  #line: Promise<unknown> = Promise.resolve();
  /** What the trial thread compiles now. */
  #trying: Wanted | undefined;
  #count = 0;
  #disposed: TandemError | undefined;

  /** `vocabSize`: width of the logits, which may be more than the tokenizer's. */
  constructor(
    tokenizer: Tokenizer,
    vocabSize: number,
    { limitMs = LIMIT_MS, quickMs = QUICK_MS }: GrammarOptions = {},
  ) {
    this.#tokenizer = tokenizer;
    this.#vocabSize = vocabSize;
    this.#limitMs = limitMs;
    this.#quickMs = quickMs;
  }

  /**
   * REQUEST_INVALID where the form is not one, with what is wrong with it, or takes too long; QUEUE_FULL where slow forms
   * have all threads that there are for them; ABORTED at once. What nobody waits for any more is not compiled to its end.
   */
  async matcher(format: OutputFormat | CallFormat, signal?: AbortSignal): Promise<FormatMatcher> {
    const problem = shapeProblem(format);
    if (problem !== undefined) throw invalidFormat(format, problem);
    const key = JSON.stringify(format);
    if (key.length > MOST_TEXT) throw invalidFormat(format, `it has ${key.length} characters, more than ${MOST_TEXT}`);
    const form = await this.#form(key, format, signal);
    const matcher = new Matcher(form, this.#count++, this.#vocabSize);
    try {
      await untilAborted(matcher.settled, signal);
      return matcher;
    } catch (error) {
      matcher.dispose();
      throw error;
    }
  }

  async #form(key: string, format: OutputFormat | CallFormat, signal: AbortSignal | undefined): Promise<Form> {
    const known = this.#forms.get(key);
    const wanted = known === undefined || known.compiled?.home.thread.ended ? this.#wanted(format) : known;
    this.#forms.delete(key);
    this.#forms.set(key, wanted); // the most recently used last
    this.#forgetOldest();
    wanted.waiting++;
    try {
      return await untilAborted(wanted.compiling, signal);
    } finally {
      wanted.waiting--;
      if (wanted.compiled === undefined && wanted.waiting === 0) {
        if (this.#forms.get(key) === wanted) this.#forms.delete(key);
        if (this.#trying === wanted) void this.#trial?.thread.end(aborted(signal));
      }
    }
  }

  #wanted(format: OutputFormat | CallFormat): Wanted {
    const compile = async () => {
      wanted.compiled = await this.#compile(format, wanted);
      return wanted.compiled;
    };
    const wanted: Wanted = { compiling: this.#inLine(compile), waiting: 0 };
    wanted.compiling.catch(() => {}); // told to whoever waits
    return wanted;
  }

  /** Ends all threads; forms under way fail. */
  async dispose(): Promise<void> {
    this.#disposed = new TandemError('DISPOSED', { room: 'engine', rule: 'the engine was disposed' });
    const homes = [this.#trial, this.#home, ...this.#apart];
    await Promise.all(homes.map((home) => home?.thread.end(this.#disposed)));
  }

  #inLine<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#line.then(work);
    this.#line = done.catch(() => {});
    return done;
  }

  async #compile(format: OutputFormat | CallFormat, wanted: Wanted): Promise<Form> {
    const markers = format.type === 'calls' ? format.markers : [];
    const call: CompileCall = {
      form: this.#count++,
      format,
      markers: markers.flatMap((marker) => this.#tokenizer.tokenId(marker) ?? []),
    };
    const trial = await this.#tried();
    if (wanted.waiting === 0) throw aborted();
    this.#trying = wanted;
    const milliseconds = await this.#compiled(trial, call).finally(() => {
      this.#trying = undefined;
    });
    if (milliseconds > this.#quickMs) {
      if (!this.#roomApart()) {
        await trial.thread.call('forget', call.form);
        throw noRoom();
      }
      this.#trial = undefined;
      this.#apart.push(trial);
      return { id: call.form, home: trial };
    }
    if (this.#home === undefined || this.#home.thread.ended) {
      this.#trial = undefined;
      this.#home = trial;
      return { id: call.form, home: trial };
    }
    await trial.thread.call('forget', call.form);
    await this.#compiled(this.#home, call);
    return { id: call.form, home: this.#home };
  }

  /** The thread that forms are tried in. */
  async #tried(): Promise<Home> {
    const texts = await (this.#texts ??= tokenTexts(this.#tokenizer, this.#vocabSize));
    if (this.#disposed) throw this.#disposed;
    if (this.#trial === undefined || this.#trial.thread.ended)
      this.#trial = { thread: new Thread('grammar-thread', texts), matchers: 0 };
    return this.#trial;
  }

  async #compiled({ thread }: Home, call: CompileCall): Promise<number> {
    const { format } = call;
    const late = () => invalidFormat(format, `compiling it takes more than ${this.#limitMs / 1000} s`);
    try {
      return await thread.call<number>('compile', call, { limit: { ms: this.#limitMs, error: late } });
    } catch (error) {
      if (error instanceof TandemError && error.code === 'REQUEST_INVALID' && !thread.ended)
        throw invalidFormat(format, error.message.replace('[engine] ', ''));
      throw error;
    }
  }

  /** Makes room for one more slow form; false where all that are kept are in use. */
  #roomApart(): boolean {
    this.#apart = this.#apart.filter(({ thread }) => !thread.ended);
    if (this.#apart.length < MOST_APART) return true;
    const idle = this.#apart.findIndex(({ matchers }) => matchers === 0);
    if (idle < 0) return false;
    const [{ thread }] = this.#apart.splice(idle, 1);
    void thread.end(new TandemError('DISPOSED', { room: 'engine', rule: 'a form is used while it is kept' }));
    return true;
  }

  #forgetOldest(): void {
    const [oldest] = this.#forms.keys();
    if (this.#forms.size <= KEPT) return;
    this.#forms.get(oldest)?.compiling.then(
      ({ id, home }) => home.thread.call('forget', id).catch(() => {}),
      () => {},
    );
    this.#forms.delete(oldest);
  }
}

class Matcher implements FormatMatcher {
  readonly mask: Uint32Array;
  readonly #home: Home;
  readonly #id: number;
  #settled: Promise<void>;
  #pending = 0;
  #disposed = false;

  constructor({ id: form, home }: Form, id: number, vocabSize: number) {
    this.mask = new Uint32Array(new SharedArrayBuffer(Math.ceil(vocabSize / 32) * 4));
    this.#home = home;
    this.#id = id;
    home.matchers++;
    this.#settled = this.#ask(home.thread.call('begin', { form, matcher: id, mask: this.mask } satisfies BeginCall));
    this.#settled.catch(() => this.dispose());
  }

  get ready(): boolean {
    return this.#pending === 0;
  }
  get settled(): Promise<void> {
    return this.#settled;
  }

  accept(token: number): void {
    const { thread } = this.#home;
    const accepted = thread.call<boolean>('accept', { matcher: this.#id, token }).then((kept) => {
      if (!kept)
        throw new TandemError('NATIVE_FAILED', {
          room: 'engine',
          rule: 'a token that was drawn keeps the form of the output',
          given: `token ${token} does not`,
        });
    });
    this.#settled = this.#ask(accepted);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#home.matchers--;
    this.#home.thread.call('end', this.#id).catch(() => {}); // an ended thread has nothing to let go
  }

  /** Whoever waits for the mask hears of its failure; nobody has to. A matcher that failed is never ready again. */
  #ask(answer: Promise<unknown>): Promise<void> {
    this.#pending++;
    const asked = answer.then(() => {
      this.#pending--;
    });
    asked.catch(() => {});
    return asked;
  }
}

/** What threads need of the vocabulary, gathered in pieces: 130 000 tokens take a tenth of a second. */
async function tokenTexts(tokenizer: Tokenizer, vocabSize: number): Promise<TokenTexts> {
  const count = Math.min(tokenizer.vocabSize, vocabSize);
  const starts = new Uint32Array(count + 1);
  const special = new Uint8Array(count);
  const pieces: Uint8Array[] = [];
  for (let id = 0; id < count; id++) {
    if (id % SPELLED_AT_ONCE === SPELLED_AT_ONCE - 1) await new Promise((resolve) => setImmediate(resolve));
    const bytes = tokenizer.tokenBytes(id);
    pieces.push(bytes);
    starts[id + 1] = starts[id] + bytes.length;
    special[id] = tokenizer.isSpecial(id) ? 1 : 0;
  }
  return { vocabSize, bytes: Buffer.concat(pieces), starts, special, stops: [...tokenizer.eosIds] };
}

/** What the library would not survive, or would understand differently. */
function shapeProblem(format: OutputFormat | CallFormat): string | undefined {
  switch (format?.type) {
    case 'json':
    case 'calls':
      return undefined;
    case 'schema':
      if (typeof format.schema === 'boolean') return undefined;
      if (typeof format.schema !== 'object' || format.schema === null || Array.isArray(format.schema))
        return 'the schema is no object';
      return format.strict ? strictProblem(format.schema) : undefined;
    case 'regex':
      return typeof format.pattern === 'string' && format.pattern !== '' ? undefined : 'the pattern is empty';
    case 'ebnf':
      return typeof format.grammar === 'string' && format.grammar.trim() !== '' ? undefined : 'the grammar is empty';
    default:
      return 'its type is none of json, schema, regex, ebnf';
  }
}

function strictProblem(schema: Readonly<Record<string, unknown>>): string | undefined {
  const problem = unfollowed(schema);
  return problem && `strict output follows the whole schema, and ${problem.path} cannot be followed`;
}

function noRoom(): TandemError {
  return new TandemError('QUEUE_FULL', {
    room: 'engine',
    rule: `outputs of at most ${MOST_APART} forms that are slow to compile are written at a time`,
    given: 'this one would be one more',
    fix: 'try again in a moment, or ask for a simpler form',
  });
}

function invalidFormat(format: OutputFormat | CallFormat, problem: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'engine',
    rule: `the ${format?.type ?? 'output'} format can be compiled`,
    given: problem.slice(0, 300),
    fix: 'correct it; what is not supported has to be left out',
  });
}
