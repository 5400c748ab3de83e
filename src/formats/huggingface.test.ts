import { describe, expect, it } from 'vitest';
import { TandemError } from '../errors.ts';
import { INDEX_FILE, openHuggingFace } from './huggingface.ts';
import { memoryFolder } from './memory-source.ts';
import { safetensors } from './safetensors-bytes.ts';

type Files = Record<string, Uint8Array | string>;
const f32 = (begin: number) => ({ dtype: 'F32', shape: [2], data_offsets: [begin, begin + 8] });
const single: Files = {
  'config.json': '{"model_type":"deepseek_v3"}',
  'generation_config.json': '{"temperature":0.6}',
  'tokenizer.json': '{"version":"1.0"}',
  'tokenizer_config.json': '{"bos_token":"<s>"}',
  'chat_template.jinja': '{{ messages }}',
  'model.safetensors': safetensors({ v: f32(0), w: f32(8) }, 16),
};
const sharded: Files = {
  'config.json': '{}',
  [INDEX_FILE]: JSON.stringify({ weight_map: { v: 'b.safetensors', w: 'a.safetensors' } }),
  'a.safetensors': safetensors({ w: f32(0), v: f32(8) }, 16),
  'b.safetensors': safetensors({ v: f32(0) }, 8),
};

async function refusal(files: Files): Promise<TandemError> {
  const error = await openHuggingFace(memoryFolder(files, 'folder')).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(TandemError);
  return error as TandemError;
}

describe('a Hugging Face folder', () => {
  it('opens with one file and its companions', async () => {
    const checkpoint = await openHuggingFace(memoryFolder(single));
    expect(checkpoint.kind).toBe('huggingface');
    expect([...checkpoint.tensors.keys()]).toEqual(['v', 'w']);
    expect(checkpoint.config).toEqual({ model_type: 'deepseek_v3' });
    expect(checkpoint.generationConfig).toEqual({ temperature: 0.6 });
    expect(await checkpoint.tokenizerJson!()).toEqual({ version: '1.0' });
    expect(await checkpoint.tokenizerConfig!()).toEqual({ bos_token: '<s>' });
    expect(await checkpoint.chatTemplateFile!()).toBe('{{ messages }}');
    expect((await checkpoint.readTensor('w', 1, 2)).length).toBe(4);
    await checkpoint.close();
    await expect(checkpoint.readTensor('w')).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  it('opens with shards, each tensor from the file its index names', async () => {
    const checkpoint = await openHuggingFace(memoryFolder(sharded));
    expect(checkpoint.files.map((file) => file.name)).toEqual(['a.safetensors', 'b.safetensors']);
    expect(checkpoint.tensors.get('w')!.file).toBe(0);
    expect(checkpoint.tensors.get('v')!.file).toBe(1);
    expect(checkpoint.generationConfig).toBeUndefined();
    expect(await checkpoint.tokenizerJson!()).toBeUndefined();
    expect(await checkpoint.chatTemplateFile!()).toBeUndefined();
  });

  const index = (map: unknown) => JSON.stringify({ weight_map: map });
  const { 'config.json': _, ...noConfig } = single;
  const cases: [what: string, code: string, says: string, files: Files][] = [
    ['no config', 'FILE_NOT_FOUND', 'config.json', noConfig],
    ['no weights', 'FILE_NOT_FOUND', 'model.safetensors', { 'config.json': '{}' }],
    ['a missing shard', 'FILE_NOT_FOUND', 'c.safetensors', { ...sharded, [INDEX_FILE]: index({ v: 'c.safetensors' }) }],
    [
      'a tensor its shard lacks',
      'FORMAT_INVALID',
      '"w" is not in b',
      { ...sharded, [INDEX_FILE]: index({ w: 'b.safetensors' }) },
    ],
    [
      'a path that leaves',
      'FORMAT_INVALID',
      'same folder',
      { ...sharded, [INDEX_FILE]: index({ w: '../a.safetensors' }) },
    ],
    ['an index without map', 'FORMAT_INVALID', 'weight_map', { ...sharded, [INDEX_FILE]: '{}' }],
    ['a broken config', 'FORMAT_INVALID', 'config.json', { ...single, 'config.json': '{' }],
    ['a config that is a list', 'FORMAT_INVALID', 'JSON object', { ...single, 'config.json': '[]' }],
    [
      'overlapping tensors',
      'FORMAT_INVALID',
      'overlap',
      { ...single, 'model.safetensors': safetensors({ v: f32(0), w: f32(4) }, 16) },
    ],
    [
      'a truncated file',
      'FORMAT_INVALID',
      'truncated',
      { ...single, 'model.safetensors': safetensors({ v: f32(0), w: f32(8) }, 15) },
    ],
  ];
  it.each(cases)('with %s is refused: %s', async (_what, code, says, files) => {
    const error = await refusal(files);
    expect(error.code).toBe(code);
    expect(error.message).toContain(says);
  });
});
