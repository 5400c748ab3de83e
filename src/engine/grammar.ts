/**
 * Forms that output keeps, as masks over the vocabulary: which tokens may come next so that the text can still become valid.
 */
import { TandemError } from '../errors.ts';
import { bytesToAlphabet } from '../text/byte-alphabet.ts';
import type { CallFormat } from '../text/parsers/call-format.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { sizeProblem } from './format-limits.ts';
import {
  type CompiledGrammar,
  type GrammarMatcher,
  instantiate,
  type StructuralTagFormat,
  type XGrammarInstance,
} from './xgrammar.ts';

/** A form that output keeps: any JSON, JSON of a schema, a regular expression, or a grammar in EBNF with a rule `root`. */
export type OutputFormat =
  | { readonly type: 'json' }
  | { readonly type: 'schema'; readonly schema: boolean | Readonly<Record<string, unknown>> }
  | { readonly type: 'regex'; readonly pattern: string }
  | { readonly type: 'ebnf'; readonly grammar: string };

/** Follows one output. */
export interface FormatMatcher {
  /** Bit t of word t >> 5: token t may come next. Valid once `ready`, until the next `accept`. */
  readonly mask: Uint32Array;
  /** Resolves when `mask` is that of the current state. */
  ready: Promise<void>;
  accept(token: number): void;
  dispose(): void;
}

/** White space between two parts of JSON: a small model would fill its whole answer with it. */
const MOST_BLANKS = 8;

/** Compiled forms are kept: agents send the same schema with every request. */
const KEPT = 64;

interface Compiled {
  readonly host: XGrammarInstance;
  readonly grammar: CompiledGrammar;
}

/** Compiles forms for one vocabulary. */
export class GrammarCompiler {
  readonly #tokenizer: Tokenizer;
  readonly #vocabSize: number;
  readonly #compiled = new Map<string, Promise<Compiled>>();
  #host: XGrammarInstance | undefined;
  /** By the markers that count as text. */
  readonly #compilers = new Map<string, ReturnType<typeof compilerOf>>();

  /** `vocabSize`: width of the logits, which may be more than the tokenizer's. */
  constructor(tokenizer: Tokenizer, vocabSize: number) {
    this.#tokenizer = tokenizer;
    this.#vocabSize = vocabSize;
  }

  /** REQUEST_INVALID where the form is not one, with what is wrong with it. */
  async matcher(format: OutputFormat | CallFormat): Promise<FormatMatcher> {
    const problem = shapeProblem(format) ?? (format.type === 'calls' ? undefined : sizeProblem(format));
    if (problem !== undefined) throw invalidFormat(format, problem);
    const key = JSON.stringify(format);
    const compiled = this.#compiled.get(key) ?? this.#compile(format);
    this.#compiled.delete(key);
    this.#compiled.set(key, compiled); // the most recently used last
    compiled.catch(() => this.#compiled.delete(key));
    const [oldest] = this.#compiled.keys();
    if (this.#compiled.size > KEPT) this.#compiled.delete(oldest);
    const { host, grammar } = await compiled;
    const stops = [...this.#tokenizer.eosIds];
    const matcher = await host.library.GrammarMatcher.createGrammarMatcher(grammar, stops);
    return new Matcher(matcher, this.#vocabSize, stops);
  }

  async #compile(format: OutputFormat | CallFormat): Promise<Compiled> {
    const host = (this.#host ??= instantiate());
    const { Grammar } = host.library;
    try {
      const compiler = await this.#compiler(host, format.type === 'calls' ? format.markers : []);
      const structure = async (content: StructuralTagFormat) =>
        compiler.compileGrammar(await Grammar.fromStructuralTag({ type: 'structural_tag', format: content }));
      const compile = async (): Promise<CompiledGrammar> => {
        switch (format.type) {
          case 'json':
            return compiler.compileBuiltinJSONGrammar();
          case 'schema':
            return compiler.compileJSONSchema(
              JSON.stringify(format.schema),
              true,
              undefined,
              undefined,
              false,
              MOST_BLANKS,
            );
          case 'regex':
            return structure({ type: 'regex', pattern: format.pattern });
          case 'ebnf':
            return compiler.compileGrammar(await Grammar.fromEBNF(format.grammar));
          case 'calls':
            return structure(format.structure);
        }
      };
      return { host, grammar: await compile() };
    } catch (error) {
      // A fault ends the instance; matchers that run keep the old one.
      if (this.#host === host) {
        this.#host = undefined;
        this.#compilers.clear();
        this.#compiled.clear();
      }
      throw invalidFormat(format, host.complaint() || String(error));
    }
  }

  #compiler(host: XGrammarInstance, markers: readonly string[]): ReturnType<typeof compilerOf> {
    const key = markers.join('\n');
    let compiler = this.#compilers.get(key);
    if (compiler === undefined) {
      compiler = compilerOf(host, this.#tokenizer, this.#vocabSize, markers);
      this.#compilers.set(key, compiler);
    }
    return compiler;
  }
}

/** Control tokens have no text, so that no grammar lets them pass; `markers` have. */
async function compilerOf(
  { library }: XGrammarInstance,
  tokenizer: Tokenizer,
  vocabSize: number,
  markers: readonly string[],
) {
  const known = new Set(markers.map((marker) => tokenizer.tokenId(marker)));
  const spelled = Array.from({ length: vocabSize }, (_, id) =>
    id >= tokenizer.vocabSize || (tokenizer.isSpecial(id) && !known.has(id))
      ? ''
      : bytesToAlphabet(tokenizer.tokenBytes(id)),
  );
  const stops = [...tokenizer.eosIds];
  const info = await library.TokenizerInfo.createTokenizerInfo(spelled, 'byte_level', false, vocabSize, stops);
  return library.GrammarCompiler.createGrammarCompiler(info);
}

class Matcher implements FormatMatcher {
  readonly #matcher: GrammarMatcher;
  readonly #stops: readonly number[];
  mask: Uint32Array;
  ready: Promise<void>;
  #disposed = false;

  constructor(matcher: GrammarMatcher, vocabSize: number, stops: readonly number[]) {
    this.#matcher = matcher;
    this.#stops = stops;
    this.mask = new Uint32Array(Math.ceil(vocabSize / 32));
    this.ready = this.#filled();
  }

  accept(token: number): void {
    if (this.#matcher.isTerminated()) return;
    if (!this.#matcher.acceptToken(token))
      throw new TandemError('NATIVE_FAILED', {
        room: 'engine',
        rule: 'a token that was drawn keeps the form of the output',
        given: `token ${token} does not`,
      });
    this.ready = this.#filled();
  }

  dispose(): void {
    if (!this.#disposed) this.#matcher.dispose();
    this.#disposed = true;
  }

  /** Whoever asks for the mask waits for it and hears of its failure; nobody has to. */
  #filled(): Promise<void> {
    const filled = this.#fill();
    filled.catch(() => {});
    return filled;
  }

  async #fill(): Promise<void> {
    if (this.#matcher.isTerminated()) {
      this.mask.fill(0);
      for (const id of this.#stops) this.mask[id >> 5] |= 1 << (id & 31);
      return;
    }
    await Promise.resolve(); // a sequence that ends with this token asks no more
    if (this.#disposed) return;
    const mask = await this.#matcher.getNextTokenBitmask();
    this.mask.set(new Uint32Array(mask.buffer, mask.byteOffset, mask.length));
  }
}

/** What the library would not survive, or would understand differently. */
function shapeProblem(format: OutputFormat | CallFormat): string | undefined {
  switch (format?.type) {
    case 'json':
    case 'calls':
      return undefined;
    case 'schema':
      if (typeof format.schema === 'boolean') return undefined;
      return typeof format.schema === 'object' && format.schema !== null && !Array.isArray(format.schema)
        ? undefined
        : 'the schema is no object';
    case 'regex':
      return typeof format.pattern === 'string' && format.pattern !== '' ? undefined : 'the pattern is empty';
    case 'ebnf':
      return typeof format.grammar === 'string' && format.grammar.trim() !== '' ? undefined : 'the grammar is empty';
    default:
      return 'its type is none of json, schema, regex, ebnf';
  }
}

function invalidFormat(format: OutputFormat | CallFormat, problem: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'engine',
    rule: `the ${format?.type ?? 'output'} format can be compiled`,
    given: problem.slice(0, 300),
    fix: 'correct it; what is not supported has to be left out',
  });
}
