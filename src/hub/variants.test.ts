import { describe, expect, test } from 'vitest';
import { chooseVariant, variantsOf } from './variants.ts';

const files = (...paths: string[]) => paths.map((path, i) => ({ path, size: (i + 1) * 1000 }));
const names = (...paths: string[]) => variantsOf(files(...paths)).map(({ name }) => name);

describe('variants of a repository', () => {
  test.each([
    [
      ['model-q4_k_m.gguf', 'model-q8_0.gguf'],
      ['Q4_K_M', 'Q8_0'],
    ],
    [
      ['Model.i1-IQ2_XXS.gguf', 'Model.Q6_K_L.gguf'],
      ['IQ2_XXS', 'Q6_K_L'],
    ],
    [
      ['gpt-oss-120b-MXFP4.gguf', 'gpt-oss-120b-F16.gguf'],
      ['MXFP4', 'F16'],
    ],
    [['R1-Q4_K_M/R1-Q4_K_M-00001-of-00002.gguf', 'R1-Q4_K_M/R1-Q4_K_M-00002-of-00002.gguf'], ['Q4_K_M']],
    [
      ['UD-Q2_K_XL/R1-UD-Q2_K_XL.gguf', 'Q2_K_XL/R1-Q2_K_XL.gguf'],
      ['UD-Q2_K_XL', 'Q2_K_XL'],
    ],
    [['BF16/model-00001-of-00001.gguf'], ['BF16']],
    [
      ['Qwen3-30B-A3B-Q4_K_M-imat.gguf', 'mmproj-F16.gguf', 'imatrix_unsloth.gguf', 'x/mmproj-model-f16.gguf'],
      ['Q4_K_M'],
    ],
    [['ggml-model.gguf'], ['ggml-model']],
    [
      ['a-Q4_0.gguf', 'b-Q4_0.gguf'],
      ['a-Q4_0', 'b-Q4_0'],
    ],
    [['README.md', 'config.json'], []],
  ])('%j has %j', (paths, expected) => {
    expect(names(...paths)).toEqual(expected);
  });

  test('shards are in order, their bytes summed, a missing one is known', () => {
    const [whole, part] = variantsOf(
      files(
        'm-Q4_0-00002-of-00002.gguf',
        'm-Q4_0-00001-of-00002.gguf',
        'm-Q8_0-00002-of-00003.gguf',
        'm-Q8_0-00001-of-00003.gguf',
      ),
    );
    expect(whole).toMatchObject({ name: 'Q4_0', bytes: 3000, complete: true });
    expect(whole.files.map(({ path }) => path)).toEqual(['m-Q4_0-00001-of-00002.gguf', 'm-Q4_0-00002-of-00002.gguf']);
    expect(part).toMatchObject({ name: 'Q8_0', complete: false });
  });

  test('of a safetensors repository weights, configuration and tokenizer count, nothing else', () => {
    const [variant, ...more] = variantsOf(
      files(
        'README.md',
        'config.json',
        'generation_config.json',
        'model-00001-of-00002.safetensors',
        'model-00002-of-00002.safetensors',
        'model.safetensors',
        'model.safetensors.index.json',
        'consolidated.safetensors',
        'original/model.safetensors',
        'pytorch_model.bin',
        'tokenizer.json',
        'tokenizer_config.json',
        'chat_template.jinja',
        'modeling_x.py',
        'figures/a.json',
      ),
    );
    expect(more).toEqual([]);
    expect(variant).toMatchObject({ name: 'safetensors', bytes: 9000, complete: true });
    expect(variant.files.map(({ path }) => path).sort()).toEqual([
      'chat_template.jinja',
      'config.json',
      'generation_config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
  });
});

describe('choosing', () => {
  const variants = variantsOf(
    files('UD-Q2_K_XL/m-UD-Q2_K_XL.gguf', 'm-Q4_K_M.gguf', 'm-UD-Q4_K_M.gguf', 'm-Q8_0-00001-of-00002.gguf'),
  );
  const choose = (quant?: string) => chooseVariant('org/m', variants, quant).name;

  test('by name in any case, by file, by the end of one name', () => {
    expect(choose('q4_k_m')).toBe('Q4_K_M');
    expect(choose('ud-q4_k_m')).toBe('UD-Q4_K_M');
    expect(choose('Q2_K_XL')).toBe('UD-Q2_K_XL');
    expect(choose('m-Q4_K_M.gguf')).toBe('Q4_K_M');
  });

  test('without a wish the only one, else what there is, with sizes', () => {
    expect(chooseVariant('org/m', variants.slice(0, 1), undefined).name).toBe('UD-Q2_K_XL');
    expect(() => choose()).toThrow('no quantization was given; org/m has UD-Q2_K_XL (1.00 kB), Q4_K_M (2.00 kB)');
    expect(() => choose('Q5_0')).toThrow(/Q5_0 was given; org\/m has .*; org\/m:UD-Q2_K_XL and so on/);
  });

  test('what is not whole, and what is no model, are told', () => {
    expect(() => choose('Q8_0')).toThrow('org/m:Q8_0 has only 1 of them; choose another quantization');
    expect(() => chooseVariant('org/m', [], undefined)).toThrow('org/m has neither');
  });
});

test('a repository of very many names is listed as far as a person reads', () => {
  const files = Array.from({ length: 50_000 }, (_, i) => ({ path: `m${i}-Q8_0.gguf`, size: 1 }));
  expect(() => chooseVariant('org/m', variantsOf(files), undefined)).toThrow(
    /m99-Q8_0 \(0\.00100 kB\) and 49900 more; org/,
  );
});
