/**
 * Reads a vocabulary from a `tiktoken.model` file (Kimi-K2): lines of `base64-bytes rank`. A pair is merged when its
 * joined bytes are a token, the lowest rank first, so no list of merges is needed. Special tokens stand in
 * tokenizer_config.json's `added_tokens_decoder`; without it the ids above the ranks are reserved and unnamed.
 */
import { TandemError } from '../errors.ts';
import { bytesToAlphabet } from './byte-alphabet.ts';
import { preTokenizerRule } from './pre-tokenizers.ts';
import { type AddedToken, looksLikeControl } from './special-tokens.ts';
import { byteLevelPreTokenizer, endOfGeneration, type Vocabulary } from './vocabulary.ts';
import { tokenContent } from './vocabulary-json.ts';

type Json = Readonly<Record<string, unknown>>;

/** @param pre name of the pre-tokenizer, which the file does not hold. */
export function vocabularyFromTiktoken(
  model: string,
  config: Json = {},
  modelConfigs: readonly (Json | undefined)[] = [],
  pre = 'kimi-k2',
): Vocabulary {
  const tokens: string[] = [];
  const ids = new Map<string, number>();
  for (const [number, line] of model.split('\n').entries()) {
    if (line.trim() === '') continue;
    const [base64, rank] = line.trim().split(' ');
    const id = Number(rank);
    if (!Number.isInteger(id) || id < 0 || !/^[A-Za-z0-9+/]+=*$/.test(base64)) {
      throw new TandemError('TOKENIZER_INVALID', {
        room: 'text',
        rule: 'a tiktoken file has lines of "base64 rank"',
        given: `line ${number + 1}: ${JSON.stringify(line.slice(0, 80))}`,
        fix: 'take tiktoken.model again from the model',
      });
    }
    const content = bytesToAlphabet(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)));
    tokens[id] = content;
    ids.set(content, id);
  }
  const added: AddedToken[] = [];
  const decoder = (config.added_tokens_decoder ?? {}) as Record<string, { content: string; special?: boolean }>;
  for (const [key, { content, special }] of Object.entries(decoder)) {
    added.push({ id: Number(key), content, control: special === true || looksLikeControl(content) });
    tokens[Number(key)] = content;
  }
  const contents = new Map(added.map((token) => [token.content, token.id]));
  const bos = tokenContent(config.bos_token);
  const eos = tokenContent(config.eos_token);
  const declared = modelConfigs.flatMap((c) => [c?.eos_token_id].flat() as (number | undefined)[]);
  const rule = preTokenizerRule(pre);
  return {
    tokens,
    ids,
    rank: (left, right) => ids.get(left + right),
    added,
    spelling: 'byte-level',
    normalizer: null,
    preTokenizer: byteLevelPreTokenizer(rule.patterns),
    ignoreMerges: true,
    bosId: bos === undefined ? undefined : contents.get(bos),
    eosIds: endOfGeneration([eos === undefined ? undefined : contents.get(eos), ...declared], (c) => contents.get(c)),
    addBos: config.add_bos_token === true,
    addEos: config.add_eos_token === true,
  };
}
