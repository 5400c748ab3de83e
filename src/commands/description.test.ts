/** Names that describe a model, and those that are nearly one. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { descriptionOf } from './description.ts';

test('known models by their names, and by the short one', () => {
  expect(descriptionOf('deepseek-v3')).toBe('deepseek-v3');
  expect(descriptionOf('mixtral')).toBe('mixtral-8x7b');
});

test('a path that exists is always a path', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tandem-description-'));
  try {
    const file = join(folder, 'config.json');
    writeFileSync(file, '{}');
    expect(descriptionOf(file)).toBe(file);
    expect(descriptionOf(folder)).toBe(file);
    writeFileSync(join(folder, 'model.safetensors'), '');
    expect(descriptionOf(folder)).toBeUndefined();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a misspelt known model names the likely one; names of files and of hubs are left to others', () => {
  expect(() => descriptionOf('deepsek-v3')).toThrow(/there is no deepsek-v3 here; did you mean deepseek-v3\? Known: /);
  expect(() => descriptionOf('qwen3-30b')).toThrow(/did you mean qwen3-30b-a3b\?/);
  for (const other of ['nobody-knows-this-one', 'deepseek-v3.gguf', 'deepseek/v3', './deepsek-v3'])
    expect(descriptionOf(other)).toBeUndefined();
});
