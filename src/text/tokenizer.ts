/**
 * Text to token ids and back. The same ids come from `tokenizer.json` and from GGUF metadata of the same model.
 *
 * Everything is exact on bytes: `decode` gives back what `encode` took (unless the model normalizes), and no clean-up
 * of spaces is done.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { Bpe } from './bpe.ts';
import { alphabetToBytes } from './byte-alphabet.ts';
import { AddedTokenSplitter, CONTROL_GUARD } from './special-tokens.ts';
import { mostBytesPerToken, type Vocabulary } from './vocabulary.ts';
import { vocabularyFromGguf } from './vocabulary-gguf.ts';
import { vocabularyFromJson } from './vocabulary-json.ts';
import { vocabularyFromTiktoken } from './vocabulary-tiktoken.ts';

export interface EncodeOptions {
  /** Put the model's begin (and end) tokens around the text as the model asks. Default false. */
  addSpecial?: boolean;
  /**
   * Read control tokens written in the text (`<｜User｜>`) as those tokens. Default false: text of a user stays text.
   * A rendered chat prompt is encoded with true.
   */
  parseSpecial?: boolean;
  /** The text holds stretches from `guard`: their control tokens stay text. */
  guarded?: boolean;
}

export interface Tokenizer {
  /** Ids are 0 … vocabSize − 1. A model's output may be wider (padding). */
  readonly vocabSize: number;
  readonly bosId?: number;
  /** Every id that ends a generation (end of sequence, of turn, of message), the model's own first. */
  readonly eosIds: readonly number[];
  /** Text of the begin and the end token, for chat templates. */
  readonly bosToken?: string;
  readonly eosToken?: string;
  /** No token stands for more bytes of UTF-8 text than this; absent where that cannot be told. */
  readonly bytesPerToken?: number;
  encode(text: string, options?: EncodeOptions): number[];
  /** Text of ids, special tokens included; bytes that are no UTF-8 become U+FFFD. */
  decode(ids: Iterable<number>): string;
  /** Exact bytes of a token; of a special token its text; none for ids without a token. */
  tokenBytes(id: number): Uint8Array;
  /**
   * Marks the control tokens in a text so that `encode(…, { parseSpecial: true, guarded: true })` leaves them text:
   * what users say is guarded, then rendered into a chat prompt whose own control tokens count.
   */
  guard(text: string): string;
  /** True for control tokens, which are not shown to people. */
  isSpecial(id: number): boolean;
  /** Id of an added token by its text, or of an ordinary token by its spelling in the vocabulary. */
  tokenId(text: string): number | undefined;
}

/** Builds the tokenizer of a checkpoint. Throws TOKENIZER_INVALID where it has none or one of an unknown kind. */
export async function createTokenizer(checkpoint: Checkpoint): Promise<Tokenizer> {
  return tokenizerFrom(await readVocabulary(checkpoint));
}

/** Builds a tokenizer from a vocabulary. The library that reads normalizers and regular expressions is loaded here. */
export async function tokenizerFrom(vocabulary: Vocabulary): Promise<Tokenizer> {
  const { Tokenizer: Library } = await import('@huggingface/tokenizers');
  try {
    const library = new Library(
      {
        model: { type: 'BPE', vocab: {}, merges: [] },
        added_tokens: [],
        normalizer: vocabulary.normalizer,
        pre_tokenizer: vocabulary.preTokenizer,
        post_processor: null,
        decoder: null,
      },
      {},
    );
    return new TextTokenizer(vocabulary, library.normalizer, library.pre_tokenizer);
  } catch (cause) {
    throw new TandemError('TOKENIZER_INVALID', {
      room: 'text',
      rule: 'the normalizer and the pre-tokenizer of a tokenizer are of known kinds',
      given: cause instanceof Error ? cause.message : String(cause),
      fix: 'load a GGUF file of the model',
      cause,
    });
  }
}

async function readVocabulary(checkpoint: Checkpoint): Promise<Vocabulary> {
  if (checkpoint.kind === 'gguf') return vocabularyFromGguf(checkpoint.metadata);
  const config = await checkpoint.tokenizerConfig?.();
  const modelConfigs = [checkpoint.generationConfig, checkpoint.config];
  const json = await checkpoint.tokenizerJson?.();
  if (json !== undefined) return vocabularyFromJson({ json, config, modelConfigs });
  const tiktoken = await checkpoint.tiktokenModel?.();
  if (tiktoken !== undefined) return vocabularyFromTiktoken(tiktoken, config, modelConfigs);
  throw new TandemError('TOKENIZER_INVALID', {
    room: 'text',
    rule: 'a Hugging Face folder has tokenizer.json or tiktoken.model',
    given: `${checkpoint.name} has neither`,
    fix: 'copy the tokenizer files of the model into the folder',
  });
}

type Normalize = ((text: string) => string) | null;
type PreTokenize = ((text: string, options: { section_index: number }) => string[]) | null;

class TextTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId?: number;
  readonly eosIds: readonly number[];
  readonly bosToken?: string;
  readonly eosToken?: string;
  readonly bytesPerToken?: number;
  private readonly vocabulary: Vocabulary;
  private readonly normalize: Normalize;
  private readonly preTokenize: PreTokenize;
  private readonly bpe: Bpe;
  private readonly splitter: AddedTokenSplitter;
  private readonly addedIds: ReadonlyMap<string, number>;
  private readonly addedById: ReadonlyMap<number, { content: string; control: boolean }>;
  private readonly bytes: (Uint8Array | undefined)[] = [];

  constructor(vocabulary: Vocabulary, normalize: Normalize, preTokenize: PreTokenize) {
    this.vocabulary = vocabulary;
    this.normalize = normalize;
    this.preTokenize = preTokenize;
    this.vocabSize = vocabulary.tokens.length;
    this.bosId = vocabulary.bosId;
    this.eosIds = vocabulary.eosIds;
    this.bosToken = vocabulary.bosId === undefined ? undefined : vocabulary.tokens[vocabulary.bosId];
    this.eosToken = vocabulary.eosIds.length === 0 ? undefined : vocabulary.tokens[vocabulary.eosIds[0]];
    this.bytesPerToken = mostBytesPerToken(vocabulary);
    this.bpe = new Bpe({ ...vocabulary, vocab: vocabulary.ids });
    this.splitter = new AddedTokenSplitter(vocabulary.added);
    this.addedIds = new Map(vocabulary.added.map((token) => [token.content, token.id]));
    this.addedById = new Map(vocabulary.added.map((token) => [token.id, token]));
  }

  encode(text: string, { addSpecial = false, parseSpecial = false, guarded = false }: EncodeOptions = {}): number[] {
    const { bosId, eosIds, addBos, addEos } = this.vocabulary;
    const ids: number[] = [];
    if (addSpecial && addBos && bosId !== undefined) ids.push(bosId);
    for (const [index, section] of this.splitter.split(text, parseSpecial).entries()) {
      if (typeof section !== 'string') ids.push(section.id);
      else {
        const plain = guarded ? section.replaceAll(CONTROL_GUARD, '') : section;
        for (const id of this.encodeSection(plain, index)) ids.push(id);
      }
    }
    if (addSpecial && addEos && eosIds.length > 0) ids.push(eosIds[0]);
    return ids;
  }

  private *encodeSection(section: string, index: number): Generator<number> {
    const normal = this.normalize === null ? section : this.normalize(section);
    for (const piece of this.cut(normal, index)) yield* this.bpe.encode(piece);
  }

  private cut(text: string, index: number): string[] {
    if (this.preTokenize === null) return [text];
    try {
      return this.preTokenize(text, { section_index: index });
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      // Regular expressions keep a stack entry per character of a word.
      throw new TandemError('REQUEST_INVALID', {
        room: 'text',
        rule: 'words have less than about a million characters',
        given: `a text of ${text.length} characters has a longer one`,
        fix: 'break it up, or give token ids',
        cause,
      });
    }
  }

  decode(ids: Iterable<number>): string {
    // `ignoreBOM` keeps a U+FEFF at the start, which is text here.
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    let text = '';
    for (const id of ids) text += decoder.decode(this.tokenBytes(id), { stream: true });
    text += decoder.decode();
    return this.vocabulary.dropLeadingSpace && text.startsWith(' ') ? text.slice(1) : text;
  }

  tokenBytes(id: number): Uint8Array {
    let bytes = this.bytes[id];
    if (bytes === undefined && id >= 0 && id < this.vocabSize) {
      bytes = this.spell(id);
      this.bytes[id] = bytes;
    }
    return bytes ?? new Uint8Array(0);
  }

  private spell(id: number): Uint8Array {
    const added = this.addedById.get(id);
    if (added !== undefined) return new TextEncoder().encode(added.content);
    const token = this.vocabulary.tokens[id] ?? '';
    if (this.vocabulary.spelling === 'byte-level') return alphabetToBytes(token);
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1], 16));
    return new TextEncoder().encode(token.replaceAll('▁', ' '));
  }

  guard(text: string): string {
    return this.splitter.guard(text);
  }

  isSpecial(id: number): boolean {
    return this.addedById.get(id)?.control === true;
  }

  tokenId(text: string): number | undefined {
    return this.addedIds.get(text) ?? this.vocabulary.ids.get(text);
  }
}
