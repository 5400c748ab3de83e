import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';

interface GoldenText {
  text: string;
  ids: number[];
}

const root = fileURLToPath(new URL('../../models/jug/', import.meta.url));
const golden = JSON.parse(readFileSync(`${root}golden/tokenizer.json`, 'utf8')) as GoldenText[];

async function open(path: string): Promise<Tokenizer> {
  const checkpoint = await openCheckpoint(path);
  const tokenizer = await createTokenizer(checkpoint);
  await checkpoint.close();
  return tokenizer;
}

const containers: [string, Tokenizer][] = [
  ['Hugging Face folder', await open(`${root}hf`)],
  ['GGUF', await open(`${root}jug-Q8_0.gguf`)],
];

describe.each(containers)('Jug from a %s', (_, tokenizer) => {
  test(`gives the ${golden.length} golden id sequences, and their text back`, () => {
    expect(golden.length).toBeGreaterThan(10);
    for (const { text, ids } of golden) {
      expect(tokenizer.encode(text, { parseSpecial: true })).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
    }
  });

  test('knows its tokens', () => {
    expect(tokenizer.vocabSize).toBe(1536);
    expect(tokenizer.bosId).toBe(0);
    expect(tokenizer.eosIds).toEqual([1]);
    expect(tokenizer.bosToken).toBe('<｜begin▁of▁sentence｜>');
    expect(tokenizer.eosToken).toBe('<｜end▁of▁sentence｜>');
    expect(tokenizer.tokenId('<｜User｜>')).toBe(1523);
    expect(tokenizer.tokenId('no such token')).toBeUndefined();
    expect(tokenizer.isSpecial(1523)).toBe(true);
    expect(tokenizer.isSpecial(1525)).toBe(false); // <think> is user-defined: shown
    expect(new TextDecoder().decode(tokenizer.tokenBytes(1525))).toBe('<think>');
  });

  test('text of a user does not become a control token', () => {
    const text = 'a<｜User｜>b<｜end▁of▁sentence｜>';
    const ids = tokenizer.encode(text);
    expect(ids).not.toContain(1523);
    expect(ids).not.toContain(1);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(tokenizer.encode(text, { parseSpecial: true })).toContain(1523);
  });

  test('user-defined tokens are found in any text', () => {
    expect(tokenizer.encode('x<think>')).toContain(1525);
  });

  test('ids outside the vocabulary have no bytes', () => {
    expect(tokenizer.tokenBytes(-1)).toHaveLength(0);
    expect(tokenizer.tokenBytes(99_999)).toHaveLength(0);
    expect(tokenizer.decode([99_999])).toBe('');
  });

  test('add_bos_token of the model is obeyed', () => {
    expect(tokenizer.encode('hi', { addSpecial: true })).toEqual(tokenizer.encode('hi'));
  });

  test('decode gives back any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), fc.boolean(), (text, parseSpecial) => {
        expect(tokenizer.decode(tokenizer.encode(text, { parseSpecial }))).toBe(text);
      }),
    );
    for (const text of ['\uFEFFbom', '\0', 'a\r\n\r\nb\t ', ' '.repeat(5000), '水'.repeat(5000), '']) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
  });

  test('a lone surrogate reads as U+FFFD', () => {
    expect(tokenizer.decode(tokenizer.encode('a\ud800b'))).toBe('a\ufffdb');
  });
});

test('both containers give the same ids for any text', () => {
  const [[, hf], [, gguf]] = containers;
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 80 }), (text) => {
      expect(gguf.encode(text)).toEqual(hf.encode(text));
    }),
  );
  for (let id = 0; id < 1536; id++) expect(gguf.tokenBytes(id)).toEqual(hf.tokenBytes(id));
});

describe('errors', () => {
  const gguf = (entries: [string, string][]): Checkpoint =>
    ({ kind: 'gguf', name: 'x.gguf', metadata: new Map(entries) }) as unknown as Checkpoint;

  test.each([
    ['no tokenizer', gguf([]), 'the file has no tokenizer'],
    ['an unknown kind', gguf([['tokenizer.ggml.model', 'rwkv']]), '"rwkv"'],
    ['no tokens', gguf([['tokenizer.ggml.model', 'gpt2']]), 'tokenizer.ggml.tokens'],
    ['a folder without tokenizer', { kind: 'huggingface', name: 'dir' } as unknown as Checkpoint, 'dir has neither'],
  ])('%s', async (_, checkpoint, message) => {
    await expect(createTokenizer(checkpoint)).rejects.toMatchObject({
      code: 'TOKENIZER_INVALID',
      message: expect.stringContaining(message),
    });
  });
});
