/** Reads a vocabulary from Hugging Face's `tokenizer.json`, with what `tokenizer_config.json` and the configs add. */
import { TandemError } from '../errors.ts';
import type { PairRank } from './bpe.ts';
import { type AddedToken, looksLikeControl } from './special-tokens.ts';
import { endOfGeneration, rankByMerges, type Vocabulary } from './vocabulary.ts';

type Json = Readonly<Record<string, unknown>>;

export interface TokenizerFiles {
  /** Parsed tokenizer.json. */
  readonly json: Json;
  /** Parsed tokenizer_config.json. */
  readonly config?: Json;
  /** Parsed generation_config.json, then config.json: where `eos_token_id` may stand. */
  readonly modelConfigs?: readonly (Json | undefined)[];
}

interface JsonAddedToken {
  id: number;
  content: string;
  special?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
}

/** Throws TOKENIZER_INVALID unless it is a BPE tokenizer. */
export function vocabularyFromJson({ json, config = {}, modelConfigs = [] }: TokenizerFiles): Vocabulary {
  const model = record(json.model);
  if (model === undefined || record(model.vocab) === undefined || !Array.isArray(model.merges)) {
    throw new TandemError('TOKENIZER_INVALID', {
      room: 'text',
      rule: 'tokenizer.json holds a BPE model with vocab and merges',
      given: model === undefined ? 'no model' : `a model of type ${JSON.stringify(model.type)}`,
      fix: 'no other kind is known; load a GGUF file of the model',
    });
  }
  checkTypes(model.vocab as Json, model.merges, json.added_tokens ?? []);
  const added = ((json.added_tokens as JsonAddedToken[] | undefined) ?? []).map(toAddedToken);
  const contents = new Map(added.map((token) => [token.content, token.id]));
  const tokens: (string | undefined)[] = [];
  const ids = new Map<string, number>();
  const vocab = model.vocab as Record<string, number>;
  for (const content in vocab) {
    const id = vocab[content];
    tokens[id] = content;
    if (!contents.has(content)) ids.set(content, id);
  }
  for (const { id, content } of added) tokens[id] = content;

  const idOf = (content: string | undefined): number | undefined =>
    content === undefined ? undefined : (contents.get(content) ?? ids.get(content));
  const bosId = idOf(tokenContent(config.bos_token));
  const wrapped = templateProcessing(json.post_processor);
  const declaredEos = [idOf(tokenContent(config.eos_token)), ...modelConfigs.flatMap((c) => idList(c?.eos_token_id))];
  return {
    tokens,
    ids,
    rank: rankOf(model.merges),
    added,
    spelling: isByteLevel(json) ? 'byte-level' : 'sentencepiece',
    normalizer: record(json.normalizer) ?? null,
    preTokenizer: record(json.pre_tokenizer) ?? null,
    ignoreMerges: model.ignore_merges === true,
    byteFallback: model.byte_fallback === true,
    unknownId: idOf(typeof model.unk_token === 'string' ? model.unk_token : undefined),
    fuseUnknown: model.fuse_unk === true,
    bosId,
    eosIds: endOfGeneration(declaredEos, (content) => contents.get(content)),
    addBos: bosId !== undefined && flag(config.add_bos_token, wrapped.first !== undefined),
    addEos: flag(config.add_eos_token, wrapped.last !== undefined),
    dropLeadingSpace: JSON.stringify(json.normalizer ?? null).includes('"Prepend"') || hasMetaspace(json),
  };
}

/** More ids than any vocabulary has; a broken file must not make a table of billions. */
const MAX_ID = 1 << 24;

const isId = (id: unknown): boolean => Number.isInteger(id) && (id as number) >= 0 && (id as number) < MAX_ID;
const isMerge = (merge: unknown): boolean =>
  typeof merge === 'string' ||
  (Array.isArray(merge) && merge.length === 2 && merge.every((side) => typeof side === 'string'));

function checkTypes(vocab: Json, merges: readonly unknown[], added: unknown): void {
  const word = Object.keys(vocab).find((content) => !isId(vocab[content]));
  if (word !== undefined) throw wrongType(`vocab has whole numbers below ${MAX_ID}`, vocab[word]);
  const merge = merges.findIndex((one) => !isMerge(one) || typeof one !== typeof merges[0]);
  if (merge >= 0) throw wrongType('merges are all "left right", or all ["left", "right"]', merges[merge]);
  if (!Array.isArray(added)) throw wrongType('added_tokens is a list', added);
  const odd = added.find((token) => !isId(record(token)?.id) || typeof record(token)?.content !== 'string');
  if (odd !== undefined) throw wrongType('added_tokens have an id and a content', odd);
}

function wrongType(rule: string, given: unknown): TandemError {
  return new TandemError('TOKENIZER_INVALID', {
    room: 'text',
    rule: `in tokenizer.json ${rule}`,
    given: `it has ${JSON.stringify(given)?.slice(0, 80)}`,
    fix: 'the file is damaged; fetch it again',
  });
}

function toAddedToken(token: JsonAddedToken): AddedToken {
  return {
    id: token.id,
    content: token.content,
    control: token.special === true || looksLikeControl(token.content),
    stripLeft: token.lstrip === true,
    stripRight: token.rstrip === true,
  };
}

/** Merges are written `"a b"` or `["a", "b"]`. */
function rankOf(merges: readonly unknown[]): PairRank {
  if (typeof merges[0] === 'string') return rankByMerges(merges as string[]);
  return rankByMerges(
    (merges as [string, string][]).map(([left, right]) => {
      if (!left.includes(' ') && !right.includes(' ')) return `${left} ${right}`;
      throw new TandemError('TOKENIZER_INVALID', {
        room: 'text',
        rule: 'tokens that are merged hold no space',
        given: JSON.stringify([left, right]),
        fix: 'load a GGUF file of the model',
      });
    }),
  );
}

/** The special tokens a TemplateProcessing post-processor puts around a single text. */
function templateProcessing(processor: unknown): { first?: string; last?: string } {
  const section = record(processor);
  if (section?.type === 'Sequence') {
    const inner = (section.processors as unknown[]).map(templateProcessing);
    return inner.find(({ first, last }) => first !== undefined || last !== undefined) ?? {};
  }
  if (section?.type !== 'TemplateProcessing') return {};
  const single = section.single as { SpecialToken?: { id: string } }[];
  return { first: single[0]?.SpecialToken?.id, last: single.at(-1)?.SpecialToken?.id };
}

function isByteLevel(json: Json): boolean {
  return JSON.stringify([json.pre_tokenizer ?? null, json.decoder ?? null]).includes('"ByteLevel"');
}

function hasMetaspace(json: Json): boolean {
  const section = JSON.stringify(json.pre_tokenizer ?? null);
  return (
    section.includes('"Metaspace"') && !section.includes('"never"') && !section.includes('"add_prefix_space":false')
  );
}

/** Text of a token that is written as a string or as an object with `content`. */
export function tokenContent(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  const content = record(value)?.content;
  return typeof content === 'string' ? content : undefined;
}

function idList(value: unknown): number[] {
  return [value].flat().filter((id): id is number => typeof id === 'number');
}

function flag(value: unknown, otherwise: boolean): boolean {
  return typeof value === 'boolean' ? value : otherwise;
}

function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}
