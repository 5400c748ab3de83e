/** Reads a vocabulary from GGUF metadata alone: `tokenizer.ggml.*` of byte-level BPE (`gpt2`) and SentencePiece (`llama`). */
import { TandemError } from '../errors.ts';
import type { MetadataArray, MetadataValue } from '../formats/checkpoint.ts';
import type { PairRank } from './bpe.ts';
import { preTokenizerRule } from './pre-tokenizers.ts';
import { type AddedToken, looksLikeControl } from './special-tokens.ts';
import {
  byteLevelPreTokenizer,
  endOfGeneration,
  rankByMerges,
  sentencePieceNormalizer,
  type Vocabulary,
} from './vocabulary.ts';

/** Values of `tokenizer.ggml.token_type`. */
const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

type Metadata = ReadonlyMap<string, MetadataValue>;

/** Throws TOKENIZER_INVALID where a key is missing or the kind of tokenizer is not known. */
export function vocabularyFromGguf(metadata: Metadata): Vocabulary {
  const model = metadata.get('tokenizer.ggml.model');
  if (model !== 'gpt2' && model !== 'llama') {
    throw new TandemError('TOKENIZER_INVALID', {
      room: 'text',
      rule: 'tokenizer.ggml.model is "gpt2" (byte-level BPE) or "llama" (SentencePiece)',
      given: model === undefined ? 'the file has no tokenizer' : `"${String(model)}"`,
      fix: "load the model's Hugging Face folder instead",
    });
  }
  const tokens = stringArray(metadata, 'tokenizer.ggml.tokens');
  const types = numberArray(metadata, 'tokenizer.ggml.token_type', tokens.length);
  const ids = new Map<string, number>();
  const added: AddedToken[] = [];
  for (const [id, content] of tokens.entries()) {
    const type = types?.[id] ?? (looksLikeControl(content) ? TOKEN_TYPE.control : TOKEN_TYPE.normal);
    if (type === TOKEN_TYPE.control || type === TOKEN_TYPE.userDefined) {
      // Older converters called `<｜User｜>` user-defined, because tokenizer.json calls it "not special".
      added.push({ id, content, control: type === TOKEN_TYPE.control || looksLikeControl(content) });
    } else if (type !== TOKEN_TYPE.unused && !ids.has(content)) {
      ids.set(content, id);
    }
  }
  const contents = new Map(added.map((token) => [token.content, token.id]));
  const id = (key: string): number | undefined => tokenId(metadata, `tokenizer.ggml.${key}_token_id`, tokens.length);
  const shared = {
    tokens,
    ids,
    added,
    bosId: id('bos'),
    eosIds: endOfGeneration([id('eos'), id('eot'), id('eom')], (content) => contents.get(content)),
    addEos: metadata.get('tokenizer.ggml.add_eos_token') === true,
  };
  const addBos = metadata.get('tokenizer.ggml.add_bos_token');
  if (model === 'gpt2') {
    const rule = preTokenizerRule(String(metadata.get('tokenizer.ggml.pre') ?? 'default'));
    return {
      ...shared,
      rank: rankByMerges(stringArray(metadata, 'tokenizer.ggml.merges')),
      spelling: 'byte-level',
      normalizer: rule.nfc ? { type: 'NFC' } : null,
      preTokenizer: byteLevelPreTokenizer(rule.patterns),
      ignoreMerges: rule.ignoreMerges,
      addBos: typeof addBos === 'boolean' ? addBos : rule.addBos === true,
    };
  }
  const prefixSpace = metadata.get('tokenizer.ggml.add_space_prefix') !== false;
  return {
    ...shared,
    rank: rankByScore(ids, numberArray(metadata, 'tokenizer.ggml.scores', tokens.length)),
    spelling: 'sentencepiece',
    normalizer: sentencePieceNormalizer(prefixSpace),
    preTokenizer: null,
    byteFallback: true,
    unknownId: id('unknown') ?? 0,
    fuseUnknown: true,
    addBos: addBos !== false,
    dropLeadingSpace: prefixSpace,
  };
}

/** SentencePiece merges the pair whose joined token has the best score. */
function rankByScore(ids: ReadonlyMap<string, number>, scores: readonly number[] | undefined): PairRank {
  if (scores === undefined) throw missing('tokenizer.ggml.scores', 'the array is missing');
  return (left, right) => {
    const id = ids.get(left + right);
    return id === undefined ? undefined : -scores[id];
  };
}

function stringArray(metadata: Metadata, key: string): string[] {
  const value = metadata.get(key);
  if (!isArray(value) || value.type !== 'string') throw missing(key, 'the array of strings is missing');
  return value.toArray() as string[];
}

function numberArray(metadata: Metadata, key: string, length: number): number[] | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (!isArray(value) || value.length !== length) {
    throw missing(key, `${isArray(value) ? value.length : 'no'} values for ${length} tokens`);
  }
  return value.toArray() as number[];
}

function tokenId(metadata: Metadata, key: string, count: number): number | undefined {
  const value = metadata.get(key);
  // Converters write 2^32 − 1 for "none".
  return typeof value === 'number' && value < count ? value : undefined;
}

function isArray(value: MetadataValue | undefined): value is MetadataArray {
  return typeof value === 'object';
}

function missing(key: string, given: string): TandemError {
  return new TandemError('TOKENIZER_INVALID', {
    room: 'text',
    rule: `a GGUF tokenizer has ${key}, one value a token`,
    given,
    fix: 'convert the model again, or load its Hugging Face folder',
  });
}
