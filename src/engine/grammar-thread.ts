/**
 * The worker thread of forms: compiles them, follows the outputs that keep them, and fills their masks; its calls
 * are at the end of the file. grammar.ts decides which thread compiles what.
 */
import { workerData } from 'node:worker_threads';
import { TandemError } from '../errors.ts';
import { bytesToAlphabet } from '../text/byte-alphabet.ts';
import type { CallFormat } from '../text/parsers/call-format.ts';
import type { OutputFormat } from './grammar.ts';
import { ebnfClasses, regexClasses, schemaClasses, structureClasses } from './letter-classes.ts';
import { answerCalls } from './thread.ts';
import {
  type CompiledGrammar,
  type GrammarMatcher,
  instantiate,
  type StructuralTagFormat,
  type XGrammarInstance,
} from './xgrammar.ts';

/** Texts of all tokens, one after the other, as bytes. */
export interface TokenTexts {
  /** Width of the logits, which may be more than there are tokens. */
  readonly vocabSize: number;
  readonly bytes: Uint8Array;
  /** Token t is bytes [starts[t], starts[t + 1]). */
  readonly starts: Uint32Array;
  /** 1 where a token is a control token. */
  readonly special: Uint8Array;
  /** Tokens that end an output. */
  readonly stops: readonly number[];
}

export interface CompileCall {
  readonly form: number;
  readonly format: OutputFormat | CallFormat;
  /** Control tokens that count as text. */
  readonly markers: readonly number[];
}

export interface BeginCall {
  readonly form: number;
  readonly matcher: number;
  /** Where its masks are written: ⌈V / 32⌉ words. */
  readonly mask: Uint32Array;
}

/** White space between two parts of JSON: a small model would fill its whole answer with it. */
const MOST_BLANKS = 8;
/** Bytes of memory of one instance; a form that wants more is refused. */
const MOST_BYTES = 1 << 30;
const WASM_PAGE = 1 << 16;

const texts = workerData as TokenTexts;
const forms = new Map<number, { readonly host: XGrammarInstance; readonly grammar: CompiledGrammar }>();
const matchers = new Map<number, { readonly matcher: GrammarMatcher; readonly mask: Uint32Array }>();
/** By the markers that count as text. */
const compilers = new Map<string, ReturnType<typeof compilerOf>>();
let host: XGrammarInstance | undefined;

interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

// The library asks for more by this alone, and takes a throw as a refusal. The thread runs nothing else.
const { prototype } = (globalThis as unknown as { WebAssembly: { Memory: { prototype: WasmMemory } } }).WebAssembly
  .Memory;
const { grow } = prototype;
prototype.grow = function (pages) {
  if (this.buffer.byteLength + pages * WASM_PAGE > MOST_BYTES) throw new RangeError('too much memory');
  return grow.call(this, pages);
};

/** Compiles a form; milliseconds it took, without what the first of a thread has to prepare. */
async function compile({ form, format, markers }: CompileCall): Promise<number> {
  host ??= instantiate();
  const used = host;
  try {
    const compiler = await compilerFor(used, markers);
    const begin = performance.now();
    forms.set(form, { host: used, grammar: await compiledBy(compiler, used, format) });
    return performance.now() - begin;
  } catch (error) {
    // A fault ends the instance; matchers that run keep the old one.
    host = undefined;
    compilers.clear();
    throw new TandemError('REQUEST_INVALID', { room: 'engine', rule: used.complaint() || String(error) });
  }
}

async function compiledBy(
  compiler: Awaited<ReturnType<typeof compilerOf>>,
  { library: { Grammar } }: XGrammarInstance,
  format: OutputFormat | CallFormat,
): Promise<CompiledGrammar> {
  const structure = async (content: StructuralTagFormat) =>
    compiler.compileGrammar(await Grammar.fromStructuralTag({ type: 'structural_tag', format: content }));
  switch (format.type) {
    case 'json':
      return compiler.compileBuiltinJSONGrammar();
    case 'schema':
      return compiler.compileJSONSchema(
        JSON.stringify(schemaClasses(format.schema)),
        true,
        undefined,
        undefined,
        false,
        MOST_BLANKS,
      );
    case 'regex':
      return structure({ type: 'regex', pattern: regexClasses(format.pattern) });
    case 'ebnf':
      return compiler.compileGrammar(await Grammar.fromEBNF(ebnfClasses(format.grammar)));
    case 'calls':
      return structure(structureClasses(format.structure));
  }
}

function compilerFor(instance: XGrammarInstance, markers: readonly number[]): ReturnType<typeof compilerOf> {
  const key = markers.join();
  let compiler = compilers.get(key);
  if (compiler === undefined) {
    compiler = compilerOf(instance, markers);
    compilers.set(key, compiler);
  }
  return compiler;
}

/** Control tokens have no text, so that no grammar lets them pass; `markers` have. */
async function compilerOf({ library }: XGrammarInstance, markers: readonly number[]) {
  const { vocabSize, bytes, starts, special, stops } = texts;
  const known = new Set(markers);
  const spelled = Array.from({ length: vocabSize }, (_, id) =>
    id >= special.length || (special[id] === 1 && !known.has(id))
      ? ''
      : bytesToAlphabet(bytes.subarray(starts[id], starts[id + 1])),
  );
  const info = await library.TokenizerInfo.createTokenizerInfo(spelled, 'byte_level', false, vocabSize, [...stops]);
  // Its own cache never lets a form go.
  return library.GrammarCompiler.createGrammarCompiler(info, false);
}

/** Begins to follow an output; its first mask is there when this is answered. */
async function begin({ form, matcher: id, mask }: BeginCall): Promise<void> {
  const { host: used, grammar } = forms.get(form)!;
  const matcher = await used.library.GrammarMatcher.createGrammarMatcher(grammar, [...texts.stops]);
  matchers.set(id, { matcher, mask });
  await fill(id);
}

/** Takes a token that was drawn, and fills the next mask. False where it breaks the form. */
async function accept({ matcher: id, token }: { matcher: number; token: number }): Promise<boolean> {
  const { matcher } = matchers.get(id)!;
  if (!matcher.isTerminated() && !matcher.acceptToken(token)) return false;
  await fill(id);
  return true;
}

async function fill(id: number): Promise<void> {
  const { matcher, mask } = matchers.get(id)!;
  if (!matcher.isTerminated()) {
    const next = await matcher.getNextTokenBitmask();
    mask.set(new Uint32Array(next.buffer, next.byteOffset, next.length));
    if (mask.some((word) => word !== 0)) return;
    throw new TandemError('REQUEST_INVALID', {
      room: 'engine',
      rule: 'some text keeps the form of the output',
      given: 'no token can follow here (a form that only refers to itself, or letters this vocabulary has not)',
      fix: 'change the form',
    });
  }
  mask.fill(0);
  for (const stop of texts.stops) mask[stop >> 5] |= 1 << (stop & 31);
}

function end(id: number): void {
  matchers.get(id)?.matcher.dispose();
  matchers.delete(id);
}

/** Matchers that run keep what they need of it. */
function forget(form: number): void {
  forms.get(form)?.grammar.dispose();
  forms.delete(form);
}

answerCalls({ compile, begin, accept, end, forget });
