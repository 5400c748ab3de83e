import { chmod, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TandemError } from '../errors.ts';
import { fileSinkFolder } from './file-sink.ts';
import { openFile } from './file-source.ts';
import { writeGguf } from './gguf-writer.ts';
import { openCheckpoint } from './open.ts';
import { safetensors } from './safetensors-bytes.ts';

let root = '';
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tandem-open-'));
});
afterAll(() => rm(root, { recursive: true }));

async function folder(name: string): Promise<string> {
  const path = join(root, name);
  await mkdir(path, { recursive: true });
  return path;
}

const content = {
  metadata: new Map([['general.name', { type: 'string', value: 'four rows' } as const]]),
  tensors: Array.from({ length: 4 }, (_, i) => ({
    name: `w${i}`,
    shape: [1024, 32],
    format: 'q8_0',
    *data() {
      for (let row = 0; row < 1024; row++) yield new Uint8Array(34).fill(i);
    },
  })),
};

async function refusal(path: string): Promise<TandemError> {
  const error = await openCheckpoint(path).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(TandemError);
  return error as TandemError;
}

describe('openCheckpoint', () => {
  it('takes a GGUF file and the folder of just one', async () => {
    const path = await folder('one');
    await writeGguf(fileSinkFolder(path), 'm.gguf', content);
    expect(await readdir(path)).toEqual(['m.gguf']);
    for (const place of [path, join(path, 'm.gguf')]) {
      const checkpoint = await openCheckpoint(place);
      expect(checkpoint.files[0].path).toBe(join(path, 'm.gguf'));
      expect(checkpoint.metadata.get('general.name')).toBe('four rows');
      expect(await checkpoint.readTensor('w3')).toEqual(new Uint8Array(1024 * 34).fill(3));
      await checkpoint.close();
      await expect(checkpoint.readTensor('w3')).rejects.toMatchObject({ code: 'DISPOSED' });
    }
  });

  it('takes a split set, from any of its files or its folder', async () => {
    const path = await folder('split');
    const names = await writeGguf(fileSinkFolder(path), 'm.gguf', { ...content, shardBytes: 70_000 });
    expect(names).toEqual(['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf']);
    expect(await readdir(path)).toEqual(names);
    for (const place of [path, ...names.map((name) => join(path, name))]) {
      const checkpoint = await openCheckpoint(place);
      expect(checkpoint.tensors.size).toBe(4);
      expect(checkpoint.files.map((file) => file.path)).toEqual(names.map((name) => join(path, name)));
      await checkpoint.close();
    }
  });

  it('takes a Hugging Face folder, but not one file of it', async () => {
    const path = await folder('hf');
    await writeFile(join(path, 'config.json'), '{"model_type":"llama"}');
    await writeFile(
      join(path, 'model.safetensors'),
      safetensors({ w: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } }, 4),
    );
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint.kind).toBe('huggingface');
    await checkpoint.close();
    const error = await refusal(join(path, 'model.safetensors'));
    expect(error.message).toContain(`pass ${path}`);
  });

  it('says what a folder lacks or has too much of', async () => {
    const empty = await folder('empty');
    expect(await refusal(empty)).toMatchObject({ code: 'FILE_NOT_FOUND' });
    const two = await folder('two');
    await writeFile(join(two, 'a.gguf'), '');
    await writeFile(join(two, 'b.gguf'), '');
    expect((await refusal(two)).message).toContain('2 GGUF models: a.gguf, b.gguf');
    const noConfig = await folder('no-config');
    await writeFile(join(noConfig, 'model.safetensors'), '');
    expect((await refusal(noConfig)).message).toContain('config.json');
  });

  it('says what is wrong with a path', async () => {
    expect(await refusal(join(root, 'nowhere.gguf'))).toMatchObject({ code: 'FILE_NOT_FOUND' });
    const text = join(await folder('text'), 'notes.txt');
    await writeFile(text, 'a text of no kind');
    expect((await refusal(text)).message).toContain('starts with 61 20 74 65');
    expect(await refusal(join(text, 'm.gguf'))).toMatchObject({ code: 'FILE_NOT_FOUND' });
  });

  it('opens and closes without leaking files', async () => {
    const path = await folder('leaks');
    const names = await writeGguf(fileSinkFolder(path), 'm.gguf', { ...content, shardBytes: 1 });
    await truncate(join(path, names[3]), 100);
    const open = async () => (await readdir('/proc/self/fd').catch(() => [])).length;
    const before = await open();
    for (let i = 0; i < 20; i++) expect(await refusal(path)).toMatchObject({ code: 'FORMAT_INVALID' });
    expect(await open()).toBeLessThanOrEqual(before + 2);
  });
});

describe('files', () => {
  it('refuse ranges they do not have', async () => {
    const path = join(await folder('files'), 'x');
    await writeFile(path, new Uint8Array(10).fill(7));
    const file = await openFile(path);
    expect(await file.read(8, 10)).toEqual(new Uint8Array([7, 7]));
    for (const [start, end] of [
      [8, 11],
      [-1, 2],
      [3, 2],
      [0, Number.NaN],
      [0.5, 1],
    ]) {
      await expect(file.read(start, end)).rejects.toMatchObject({ code: 'FILE_IO' });
    }
    await truncate(path, 5);
    await expect(file.read(0, 10)).rejects.toMatchObject({ code: 'FILE_IO' });
    await file.close();
    await file.close();
    await expect(file.read(0, 1)).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  it('are written whole or not at all', async () => {
    const path = await folder('whole');
    await writeFile(join(path, 'm.gguf'), 'the old one');
    const broken = {
      ...content,
      tensors: [...content.tensors, { name: 'bad', shape: [9], format: 'f32', data: () => [] }],
    };
    await expect(writeGguf(fileSinkFolder(path), 'm.gguf', broken)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    expect(await readdir(path)).toEqual(['m.gguf']);
    expect(await readFile(join(path, 'm.gguf'), 'utf8')).toBe('the old one');
  });

  it('are refused by a folder that is missing or read-only', async () => {
    const missing = writeGguf(fileSinkFolder(join(root, 'missing')), 'm.gguf', content);
    await expect(missing).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    const path = await folder('read-only');
    await chmod(path, 0o500);
    const asRoot = process.getuid?.() === 0;
    const target = asRoot ? '/proc' : path; // root may write anywhere but where there is no disk
    const error = await writeGguf(fileSinkFolder(target), 'm.gguf', content).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(TandemError);
    expect((error as TandemError).message).toContain('cannot write');
  });

  it.skipIf(process.platform !== 'linux')('on a full disk give one clear error', async () => {
    const { symlink } = await import('node:fs/promises');
    const path = await folder('full');
    await symlink('/dev/full', join(path, 'm.gguf.partial'));
    const error = await writeGguf(fileSinkFolder(path), 'm.gguf', content).catch((error: unknown) => error);
    expect(error).toMatchObject({ code: 'FILE_IO' });
    expect((error as TandemError).message).toContain('the disk is full');
    expect(await readdir(path)).toEqual([]);
  });
});
