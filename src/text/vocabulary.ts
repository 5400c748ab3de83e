/**
 * What a tokenizer is made of, whatever file it came from. Readers (`vocabulary-json.ts`, `vocabulary-gguf.ts`,
 * `vocabulary-tiktoken.ts`) produce it, `tokenizer.ts` runs it.
 */
import type { PairRank } from './bpe.ts';
import type { AddedToken } from './special-tokens.ts';

export interface Vocabulary {
  /** Text of each token by id, in the writing of `spelling`; holes are undefined. */
  readonly tokens: readonly (string | undefined)[];
  /** Ids of the tokens that merging may produce: all but the added ones. */
  readonly ids: ReadonlyMap<string, number>;
  readonly rank: PairRank;
  readonly added: readonly AddedToken[];
  /** How token text stands for bytes: the byte alphabet of GPT-2, or SentencePiece's `▁` and `<0x0A>`. */
  readonly spelling: 'byte-level' | 'sentencepiece';
  /** Sections of tokenizer.json, run before merging. */
  readonly normalizer: object | null;
  readonly preTokenizer: object | null;
  readonly ignoreMerges?: boolean;
  readonly byteFallback?: boolean;
  readonly unknownId?: number;
  readonly fuseUnknown?: boolean;
  readonly bosId?: number;
  /** All ids that end a generation, the main one first. */
  readonly eosIds: readonly number[];
  readonly addBos: boolean;
  readonly addEos: boolean;
  /** SentencePiece puts a space before text; `decode` takes it off again. */
  readonly dropLeadingSpace?: boolean;
}

/** Tokens that end an answer wherever a vocabulary has them as added tokens, whatever the files declare. */
const END_OF_GENERATION = [
  '<｜end▁of▁sentence｜>',
  '<|im_end|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|end_of_text|>',
  '<|endoftext|>',
  '<|return|>',
  '<|call|>',
  '<|EOT|>',
  '<end_of_turn>',
  '[EOS]',
  '[EOT]',
];

/** The declared end ids followed by those known by name, each once. `<|end|>` ends a turn only where there is no `<|return|>`. */
export function endOfGeneration(
  declared: Iterable<number | undefined>,
  idOf: (content: string) => number | undefined,
): number[] {
  const ids = new Set<number>();
  for (const id of declared) if (id !== undefined) ids.add(id);
  for (const content of END_OF_GENERATION) {
    const id = idOf(content);
    if (id !== undefined) ids.add(id);
  }
  const end = idOf('<|end|>');
  if (end !== undefined && idOf('<|return|>') === undefined) ids.add(end);
  return [...ids];
}

/** Rank of a pair by its place in a list of merges written `left right`. */
export function rankByMerges(merges: Iterable<string>): PairRank {
  const ranks = new Map<string, number>();
  for (const merge of merges) if (!ranks.has(merge)) ranks.set(merge, ranks.size);
  return (left, right) => ranks.get(`${left} ${right}`);
}

/** The pre-tokenizer section of byte-level BPE: cut by each pattern, then write bytes in the alphabet. */
export function byteLevelPreTokenizer(patterns: readonly string[]): object {
  return {
    type: 'Sequence',
    pretokenizers: [
      ...patterns.map((pattern) => ({
        type: 'Split',
        pattern: { Regex: pattern },
        behavior: 'Isolated',
        invert: false,
      })),
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  };
}

/** Normalizer of SentencePiece models: an optional leading space, and `▁` for every space. */
export function sentencePieceNormalizer(prefixSpace: boolean): object {
  const spaces = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  return { type: 'Sequence', normalizers: prefixSpace ? [{ type: 'Prepend', prepend: '▁' }, spaces] : [spaces] };
}

/** Composing characters (NFC) makes at most three bytes one: of nine, three (Hangul). */
const MOST_COMPOSED = 3;

/** Most bytes of UTF-8 text that one token can stand for; undefined where text may vanish or shrink without bound. */
export function mostBytesPerToken(vocabulary: Vocabulary): number | undefined {
  const { tokens, added, spelling, normalizer, preTokenizer, unknownId, fuseUnknown, byteFallback } = vocabulary;
  const shrinks = shrinkage(normalizer);
  const vanishes =
    added.some(({ stripLeft, stripRight }) => stripLeft || stripRight) ||
    (unknownId !== undefined && fuseUnknown && !byteFallback) ||
    /"Removed"|Whitespace/.test(JSON.stringify(preTokenizer ?? null));
  if (shrinks === undefined || vanishes) return undefined;
  // A unit of the byte alphabet is one byte, a UTF-16 unit at most three.
  const unit = spelling === 'byte-level' ? 1 : 3;
  let most = 4; // an unknown symbol
  for (const token of tokens) if (token !== undefined) most = Math.max(most, token.length * unit);
  for (const { content } of added) most = Math.max(most, content.length * 3);
  return most * shrinks;
}

/** How many bytes of text become one at most. */
function shrinkage(normalizer: object | null): number | undefined {
  if (normalizer === null) return 1;
  const { type, normalizers, pattern, content } = normalizer as {
    type?: string;
    normalizers?: object[];
    pattern?: { String?: string };
    content?: string;
  };
  if (type === 'NFC') return MOST_COMPOSED;
  if (type === 'Prepend') return 1;
  if (type === 'Replace' && pattern?.String === ' ' && content === '▁') return 1;
  if (type !== 'Sequence' || normalizers === undefined) return undefined;
  return normalizers.reduce<number | undefined>((product, one) => {
    const factor = shrinkage(one);
    return product === undefined || factor === undefined ? undefined : product * factor;
  }, 1);
}
