import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf as oracle } from '@huggingface/gguf';
import { describe, expect, it } from 'vitest';
import { TandemError } from '../errors.ts';
import type { MetadataArray } from './checkpoint.ts';
import { openGguf } from './gguf.ts';
import { type GgufValue, metadataArray, typedMetadata } from './gguf-encode.ts';
import { parseShardName, shardName } from './gguf-types.ts';
import { type GgufContent, type GgufTensor, writeGguf } from './gguf-writer.ts';
import { memoryFolder, memorySinkFolder } from './memory-source.ts';
import type { ByteSource } from './source.ts';

const EVERY_TYPE = new Map<string, GgufValue>([
  ['a.u8', { type: 'u8', value: 255 }],
  ['a.i8', { type: 'i8', value: -128 }],
  ['a.u16', { type: 'u16', value: 65535 }],
  ['a.i16', { type: 'i16', value: -32768 }],
  ['a.u32', { type: 'u32', value: 2 ** 32 - 1 }],
  ['a.i32', { type: 'i32', value: -(2 ** 31) }],
  ['a.f32', { type: 'f32', value: Math.fround(0.1) }],
  ['a.f64', { type: 'f64', value: 0.1 }],
  ['a.bool', { type: 'bool', value: true }],
  ['a.string', { type: 'string', value: '水 and \ufeffBOM' }],
  ['a.u64.exact', { type: 'u64', value: 2 ** 53 - 1 }],
  ['a.u64.big', { type: 'u64', value: 2n ** 64n - 1n }],
  ['a.i64.big', { type: 'i64', value: -(2n ** 63n) }],
  ['a.i32s', { type: 'array', value: metadataArray('i32', [1, -2, 3]) }],
  ['a.bools', { type: 'array', value: metadataArray('bool', [true, false]) }],
  [
    'a.strings',
    { type: 'array', value: metadataArray('string', ['', 'é', 'a long token that goes to the decoder, really']) },
  ],
  ['a.none', { type: 'array', value: metadataArray('f64', []) }],
  [
    'a.nested',
    {
      type: 'array',
      value: metadataArray('array', [
        metadataArray('u8', [1, 2]),
        metadataArray('string', ['x', 'yz']),
        metadataArray('array', [metadataArray('i64', [-5]), metadataArray('u64', [])]),
        metadataArray('f32', []),
      ]),
    },
  ],
]);

function tensor(name: string, shape: number[], format: string, bytes: number, fill = 1): GgufTensor {
  return { name, shape, format, data: () => [new Uint8Array(bytes).fill(fill)] };
}

const TENSORS = [
  tensor('token_embd.weight', [4, 256], 'q4_k', 4 * 144, 1),
  tensor('blk.0.ffn_up_exps.weight', [2, 3, 32], 'q8_0', 2 * 3 * 34, 2),
  tensor('positions', [5], 'i32', 20, 3),
  tensor('blk.0.attn_norm.weight', [7], 'f32', 28, 4),
];

async function write(content: Partial<GgufContent> = {}, file = 'm.gguf'): Promise<Record<string, Uint8Array>> {
  const folder = memorySinkFolder();
  await writeGguf(folder, file, { metadata: EVERY_TYPE, tensors: TENSORS, ...content });
  return folder.files;
}

async function bytesOf(content: Partial<GgufContent> = {}): Promise<Uint8Array> {
  return (await write(content))['m.gguf'];
}

const open = (bytes: Uint8Array) => openGguf(memoryFolder({ 'm.gguf': bytes }), 'm.gguf');

/** The error that opening gives; anything but a TandemError fails the test. */
async function refusal(files: Uint8Array | Record<string, Uint8Array>, file = 'm.gguf'): Promise<TandemError> {
  const folder = memoryFolder(files instanceof Uint8Array ? { 'm.gguf': files } : files);
  const error = await openGguf(folder, file).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(TandemError);
  return error as TandemError;
}

function plain(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const array = value as MetadataArray;
  return { type: array.type, items: array.toArray().map(plain) };
}

/** A header by hand, for what the writer refuses to write. */
class Raw {
  #bytes: number[] = [];
  u32(...values: number[]): this {
    for (const value of values) for (let i = 0; i < 4; i++) this.#bytes.push((value >>> (8 * i)) & 255);
    return this;
  }
  u64(...values: (number | bigint)[]): this {
    for (const value of values)
      for (let i = 0n; i < 8n; i++) this.#bytes.push(Number((BigInt(value) >> (8n * i)) & 255n));
    return this;
  }
  text(value: string): this {
    const bytes = new TextEncoder().encode(value);
    this.u64(bytes.length);
    this.#bytes.push(...bytes);
    return this;
  }
  pad(to: number): Uint8Array {
    return new Uint8Array([...this.#bytes, ...new Array(Math.max(0, to - this.#bytes.length)).fill(0)]);
  }
}

const header = (tensors: number | bigint, values: number | bigint = 0, version = 3) =>
  new Raw().u32(0x46554747, version).u64(tensors, values);

describe('writer and reader', () => {
  it('carry every metadata type, also nested', async () => {
    const checkpoint = await open(await bytesOf());
    expect([...checkpoint.metadata.keys()]).toEqual([...EVERY_TYPE.keys()]);
    for (const [key, { type, value }] of EVERY_TYPE) {
      expect(checkpoint.metadataTypes.get(key)).toBe(type);
      expect(plain(checkpoint.metadata.get(key)), key).toEqual(plain(value));
    }
    const nested = checkpoint.metadata.get('a.nested') as MetadataArray;
    expect((nested.at(1) as MetadataArray).at(1)).toBe('yz');
    expect(((nested.at(2) as MetadataArray).at(0) as MetadataArray).at(0)).toBe(-5);
    expect(() => nested.at(4)).toThrow(RangeError);
    const strings = checkpoint.metadata.get('a.strings') as MetadataArray;
    expect(strings.at(1)).toBe('é');
  });

  it.each([1, 32, 64, 4096])('place tensors at alignment %i', async (alignment) => {
    const metadata = new Map([...EVERY_TYPE, ['general.alignment', { type: 'u32', value: alignment }] as const]);
    const checkpoint = await open(await bytesOf({ metadata }));
    expect(checkpoint.alignment).toBe(alignment);
    expect([...checkpoint.tensors.keys()]).toEqual(TENSORS.map(({ name }) => name));
    for (const [i, { name, shape, format }] of TENSORS.entries()) {
      const info = checkpoint.tensors.get(name)!;
      expect(info).toMatchObject({ shape, format, file: 0 });
      expect(info.offset % alignment).toBe(0);
      const bytes = await checkpoint.readTensor(name);
      expect(bytes).toEqual(new Uint8Array(info.bytes).fill(i + 1));
    }
  });

  it('read rows of the outermost dimension', async () => {
    const data = Uint8Array.from({ length: 3 * 34 }, (_, i) => i);
    const checkpoint = await open(
      await bytesOf({ tensors: [{ name: 'w', shape: [3, 32], format: 'q8_0', data: () => [data] }] }),
    );
    expect(await checkpoint.readTensor('w', 1, 3)).toEqual(data.subarray(34));
    expect(await checkpoint.readTensor('w', 2, 2)).toEqual(new Uint8Array(0));
    await expect(checkpoint.readTensor('w', 1, 4)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(checkpoint.readTensor('v')).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    await checkpoint.close();
    await expect(checkpoint.readTensor('w')).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  it('copy a checkpoint byte for byte', async () => {
    const bytes = await bytesOf();
    const from = await open(bytes);
    const tensors = [...from.tensors.values()].map(({ name, shape, format }) => ({
      name,
      shape,
      format,
      async *data() {
        for (let row = 0; row < shape[0]; row++) yield await from.readTensor(name, row, row + 1);
      },
    }));
    expect(await bytesOf({ metadata: typedMetadata(from), tensors })).toEqual(bytes);
  });

  it('agree with @huggingface/gguf on a file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tandem-gguf-'));
    try {
      const metadata = new Map(EVERY_TYPE);
      metadata.delete('a.nested'); // the oracle reads it, in a shape of its own
      const bytes = await bytesOf({ metadata });
      await writeFile(join(folder, 'm.gguf'), bytes);
      const theirs = await oracle(join(folder, 'm.gguf'), { allowLocalFile: true });
      const ours = await open(bytes);
      for (const [key, value] of ours.metadata) {
        const flat = typeof value === 'object' ? value.toArray() : value;
        const wide = (item: unknown) => (typeof item === 'number' && Number.isInteger(item) ? BigInt(item) : item);
        const same = (item: unknown): unknown => (Array.isArray(item) ? item.map(wide) : wide(item));
        expect(same((theirs.metadata as Record<string, unknown>)[key]), key).toEqual(same(flat));
      }
      expect(
        theirs.tensorInfos.map(({ name, shape, offset }) => [name, shape.map(Number).reverse(), Number(offset)]),
      ).toEqual(
        [...ours.tensors.values()].map(({ name, shape, offset }) => [
          name,
          shape,
          offset - Number(theirs.tensorDataOffset),
        ]),
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('reads version 2', async () => {
    const bytes = await bytesOf();
    bytes[4] = 2;
    expect((await open(bytes)).version).toBe(2);
  });

  it('opens a header of 1,086 tensors and 129,000 tokens through windows', async () => {
    const tokens = Array.from({ length: 129_000 }, (_, i) => (i % 50 === 0 ? `水${i}` : `token ${i}`));
    const metadata = new Map<string, GgufValue>([
      ['tokenizer.ggml.tokens', { type: 'array', value: metadataArray('string', tokens) }],
      ['tokenizer.ggml.merges', { type: 'array', value: metadataArray('string', tokens) }],
      ['tokenizer.ggml.token_type', { type: 'array', value: metadataArray('i32', new Array(129_000).fill(1)) }],
    ]);
    const tensors = Array.from({ length: 1086 }, (_, i) =>
      tensor(`blk.${i}.ffn_gate_exps.weight`, [1, 32], 'q8_0', 34),
    );
    const bytes = await bytesOf({ metadata, tensors });
    const folder = memoryFolder({ 'm.gguf': bytes });
    const start = performance.now();
    const checkpoint = await openGguf(folder, 'm.gguf');
    console.log(`opened ${bytes.length} bytes of header in ${(performance.now() - start).toFixed(1)} ms`);
    expect(checkpoint.tensors.size).toBe(1086);
    const array = checkpoint.metadata.get('tokenizer.ggml.tokens') as MetadataArray;
    expect(array.at(128_950)).toBe('水128950');
    expect(array.toArray()).toEqual(tokens);
  });

  it('reads no more of a file than its header', async () => {
    const bytes = await bytesOf({ tensors: [tensor('w', [8 << 20], 'f32', 32 << 20)] });
    const folder = memoryFolder({ 'm.gguf': bytes });
    let read = 0;
    const counting = {
      ...folder,
      async open(file: string) {
        const source = (await folder.open(file))!;
        return {
          name: source.name,
          size: source.size,
          read(start: number, end: number) {
            read += end - start;
            return source.read(start, end);
          },
          close: () => source.close(),
        };
      },
    };
    await openGguf(counting, 'm.gguf');
    expect(read).toBeLessThanOrEqual(1 << 20);
  });
});

/** A source that claims `size` bytes, zeros after `head`; `reads` collects the ranges asked for. */
function vast(head: Uint8Array, size: number, reads: number[][]): ByteSource {
  return {
    name: 'm.gguf',
    size,
    async read(start, end) {
      reads.push([start, end]);
      const bytes = new Uint8Array(end - start);
      if (start < head.length) bytes.set(head.subarray(start, end));
      return bytes;
    },
    async close() {},
  };
}

const openVast = (source: ByteSource) =>
  openGguf({ name: 'disk', open: async () => source, list: async () => [] }, 'm.gguf');

describe('a file of four terabytes', () => {
  it('has its tensors beyond 32 bits', async () => {
    const head = header(2)
      .text('v')
      .u32(1)
      .u64(8)
      .u32(0)
      .u64(0)
      .text('w')
      .u32(2)
      .u64(32, 2n ** 35n)
      .u32(8)
      .u64(2n ** 41n)
      .pad(192);
    const reads: number[][] = [];
    const checkpoint = await openVast(vast(head, 2 ** 42, reads));
    const { offset, bytes } = checkpoint.tensors.get('w')!;
    expect(offset - checkpoint.tensors.get('v')!.offset).toBe(2 ** 41);
    expect(bytes).toBe(2 ** 35 * 34);
    await checkpoint.readTensor('w', 2 ** 34, 2 ** 34 + 1);
    expect(reads.at(-1)).toEqual([offset + 2 ** 34 * 34, offset + 2 ** 34 * 34 + 34]);
  });

  it.each([
    ['three million tensors', header(3_000_000)],
    ['three million keys', header(0, 3_000_000)],
    ['a key of a gigabyte', header(0, 1).u64(2n ** 30n)],
    [
      'an array of a gigabyte',
      header(0, 1)
        .text('k')
        .u32(9, 0)
        .u64(2n ** 30n),
    ],
    [
      'a billion strings',
      header(0, 1)
        .text('k')
        .u32(9, 8)
        .u64(2n ** 30n),
    ],
  ])('with %s in its header is refused for the price of a window', async (_, raw) => {
    const reads: number[][] = [];
    const error = await openVast(vast(raw.pad(0), 2 ** 42, reads)).catch((error: unknown) => error);
    expect(error).toMatchObject({ name: 'TandemError', code: 'FORMAT_INVALID' });
    expect(Math.max(...reads.map(([, end]) => end))).toBeLessThanOrEqual(2 ** 27);
  });
});

describe('split sets', () => {
  const shardBytes = 600;

  it('open from the first file and from any other', async () => {
    const files = await write({ shardBytes });
    const names = Object.keys(files);
    expect(names).toEqual([0, 1].map((i) => shardName('m', i, 2)));
    for (const name of names) {
      const checkpoint = await openGguf(memoryFolder(files), name);
      expect(checkpoint.files.length).toBe(2);
      expect([...checkpoint.tensors.keys()]).toEqual(TENSORS.map((tensor) => tensor.name));
      expect(checkpoint.metadata.get('a.u8')).toBe(255);
      expect(await checkpoint.readTensor('positions')).toEqual(new Uint8Array(20).fill(3));
      expect(checkpoint.tensors.get('positions')!.file).toBe(1);
    }
  });

  it('name a missing file', async () => {
    const files = await write({ shardBytes });
    delete files[shardName('m', 1, 2)];
    const error = await refusal(files, shardName('m', 0, 2));
    expect(error.code).toBe('FILE_NOT_FOUND');
    expect(error.message).toContain('m-00002-of-00002.gguf');
  });

  it('refuse files in the wrong place, under other names or of other sets', async () => {
    const files = await write({ shardBytes });
    const [first, second] = Object.values(files);
    const swapped = { 'm-00001-of-00002.gguf': second, 'm-00002-of-00002.gguf': first };
    expect(await refusal(swapped, 'm-00001-of-00002.gguf')).toMatchObject({ code: 'FORMAT_INVALID' });
    const renamed = await refusal({ 'other.gguf': first }, 'other.gguf');
    expect(renamed.message).toContain('one of 2 files');
    const twice = { 'm-00001-of-00003.gguf': first, 'm-00002-of-00003.gguf': second, 'm-00003-of-00003.gguf': second };
    expect((await refusal(twice, 'm-00001-of-00003.gguf')).message).toContain('split.count = 2');
    const more = await write({ shardBytes, tensors: [...TENSORS, tensor('more', [8], 'f32', 32)] });
    const mixed = { 'm-00001-of-00002.gguf': first, 'm-00002-of-00002.gguf': Object.values(more)[1] };
    expect((await refusal(mixed, 'm-00001-of-00002.gguf')).message).toContain('split.tensors.count');
    const unsplit = { 'm-00001-of-00002.gguf': await bytesOf(), 'm-00002-of-00002.gguf': second };
    expect((await refusal(unsplit, 'm-00001-of-00002.gguf')).message).toContain('split.count = undefined');
  });

  it('know their names', () => {
    expect(parseShardName('a-b-00002-of-00010.gguf')).toEqual({ stem: 'a-b', index: 1, count: 10 });
    for (const name of ['a.gguf', 'a-00000-of-00002.gguf', 'a-00003-of-00002.gguf', 'a-1-of-2.gguf']) {
      expect(parseShardName(name)).toBeUndefined();
    }
  });
});

describe('a file that is refused', () => {
  const cases: [what: string, code: string, says: string, bytes: () => Uint8Array | Promise<Uint8Array>][] = [
    ['an empty file', 'FORMAT_INVALID', 'ends at byte 0', () => new Uint8Array(0)],
    [
      'a wrong magic',
      'FORMAT_INVALID',
      '50 4b 03 04',
      () => new Uint8Array([0x50, 0x4b, 3, 4, ...new Array(60).fill(0)]),
    ],
    ['version 1', 'FORMAT_UNSUPPORTED', 'version 1', () => header(0, 0, 1).pad(64)],
    ['big-endian', 'FORMAT_UNSUPPORTED', 'big-endian', () => header(0, 0, 0x03000000).pad(64)],
    ['2^60 tensors', 'FORMAT_INVALID', 'claims', () => header(2n ** 60n).pad(256)],
    ['2^60 keys', 'FORMAT_INVALID', 'claims', () => header(0, 2n ** 60n).pad(256)],
    [
      'a key longer than the file',
      'FORMAT_INVALID',
      'claims',
      () =>
        header(0, 1)
          .u64(2n ** 40n)
          .pad(256),
    ],
    ['an unknown metadata type', 'FORMAT_INVALID', 'type 13', () => header(0, 1).text('k').u32(13).pad(256)],
    [
      '2^60 elements',
      'FORMAT_INVALID',
      'claims',
      () =>
        header(0, 1)
          .text('k')
          .u32(9, 5)
          .u64(2n ** 60n)
          .pad(256),
    ],
    [
      'arrays in arrays without end',
      'FORMAT_INVALID',
      'deep',
      () => {
        const raw = header(0, 1).text('k').u32(9);
        for (let i = 0; i < 5000; i++) raw.u32(9).u64(1);
        return raw.pad(70_000);
      },
    ],
    [
      'a key that comes twice',
      'FORMAT_INVALID',
      'twice',
      () => header(0, 2).text('k').u32(4, 1).text('k').u32(4, 1).pad(256),
    ],
    [
      'an odd alignment',
      'FORMAT_INVALID',
      'power of two',
      () => header(0, 1).text('general.alignment').u32(4, 24).pad(256),
    ],
    [
      'five dimensions',
      'FORMAT_INVALID',
      'has 5',
      () => header(1).text('w').u32(5).u64(1, 1, 1, 1, 1).u32(0).u64(0).pad(256),
    ],
    [
      '2^60 rows',
      'FORMAT_INVALID',
      'within',
      () =>
        header(1)
          .text('w')
          .u32(2)
          .u64(32, 2n ** 60n)
          .u32(0)
          .u64(0)
          .pad(256),
    ],
    [
      '2^60 squared',
      'FORMAT_INVALID',
      'within',
      () =>
        header(1)
          .text('w')
          .u32(2)
          .u64(2n ** 60n, 2n ** 60n)
          .u32(0)
          .u64(0)
          .pad(256),
    ],
    ['no columns', 'FORMAT_INVALID', 'at least 1', () => header(1).text('w').u32(2).u64(0, 4).u32(0).u64(0).pad(256)],
    [
      'an unknown type',
      'FORMAT_UNSUPPORTED',
      'tensor "w" has type 99',
      () => header(1).text('w').u32(1).u64(8).u32(99).u64(0).pad(256),
    ],
    [
      'rows of 33 in q8_0',
      'FORMAT_INVALID',
      'multiples of 32',
      () => header(1).text('w').u32(1).u64(33).u32(8).u64(0).pad(256),
    ],
    [
      'a misaligned offset',
      'FORMAT_INVALID',
      'alignment',
      () => header(1).text('w').u32(1).u64(8).u32(0).u64(8).pad(256),
    ],
    [
      'an offset of 2^60',
      'FORMAT_INVALID',
      'needs bytes',
      () =>
        header(1)
          .text('w')
          .u32(1)
          .u64(8)
          .u32(0)
          .u64(2n ** 60n)
          .pad(256),
    ],
    [
      'a tensor past the end',
      'FORMAT_INVALID',
      'has 120 bytes',
      () => header(1).text('w').u32(1).u64(16).u32(0).u64(0).pad(120),
    ],
    [
      'overlapping tensors',
      'FORMAT_INVALID',
      'ends at byte',
      () => header(2).text('v').u32(1).u64(16).u32(0).u64(0).text('w').u32(1).u64(8).u32(0).u64(32).pad(512),
    ],
    [
      'a tensor that comes twice',
      'FORMAT_INVALID',
      'twice',
      () => header(2).text('w').u32(1).u64(8).u32(0).u64(0).text('w').u32(1).u64(8).u32(0).u64(32).pad(512),
    ],
    ['no such file', 'FILE_NOT_FOUND', 'm.gguf', () => new Uint8Array(0)],
  ];

  it.each(cases)('%s: %s', async (what, code, says, bytes) => {
    const error = await refusal(what === 'no such file' ? {} : await bytes());
    expect(error.code).toBe(code);
    expect(error.message).toContain(says);
    expect(error.message).toMatch(/^\[formats\] .*; .*; /);
  });

  it('is any file cut off anywhere', async () => {
    const bytes = await bytesOf();
    const checkpoint = await open(bytes);
    const last = checkpoint.tensors.get('blk.0.attn_norm.weight')!;
    for (let length = 0; length < last.offset + last.bytes; length++) {
      const error = await refusal(bytes.subarray(0, length));
      expect(error.code).toBe('FORMAT_INVALID');
    }
    await open(bytes.subarray(0, last.offset + last.bytes));
  });
});

describe('content the writer refuses', () => {
  const meta = (value: GgufValue) => ({ metadata: new Map([['k', value]]) });
  const cases: [what: string, code: string, content: Partial<GgufContent>][] = [
    ['256 as u8', 'REQUEST_INVALID', meta({ type: 'u8', value: 256 })],
    ['-1 as u64', 'REQUEST_INVALID', meta({ type: 'u64', value: -1 })],
    ['half an i32', 'REQUEST_INVALID', meta({ type: 'i32', value: 0.5 })],
    ['text as bool', 'REQUEST_INVALID', meta({ type: 'bool', value: 'yes' })],
    ['text among numbers', 'REQUEST_INVALID', meta({ type: 'array', value: metadataArray('u8', [1, 'x']) })],
    [
      'alignment 24',
      'REQUEST_INVALID',
      { metadata: new Map([['general.alignment', { type: 'u32', value: 24 } as const]]) },
    ],
    ['two of a name', 'REQUEST_INVALID', { tensors: [tensor('w', [1], 'f32', 4), tensor('w', [1], 'f32', 4)] }],
    ['fp8', 'FORMAT_UNSUPPORTED', { tensors: [tensor('w', [1], 'f8_e4m3', 1)] }],
    ['rows of 33', 'REQUEST_INVALID', { tensors: [tensor('w', [33], 'q8_0', 34)] }],
    ['five dimensions', 'REQUEST_INVALID', { tensors: [tensor('w', [1, 1, 1, 1, 1], 'f32', 4)] }],
    ['too few bytes', 'REQUEST_INVALID', { tensors: [tensor('w', [2], 'f32', 4)] }],
    ['too many bytes', 'REQUEST_INVALID', { tensors: [tensor('w', [2], 'f32', 12)] }],
    ['an aborted signal', 'ABORTED', { signal: AbortSignal.abort() }],
  ];

  it.each(cases)('%s: %s', async (_, code, content) => {
    const folder = memorySinkFolder();
    const written = writeGguf(folder, 'm.gguf', { metadata: new Map(), tensors: TENSORS, ...content });
    await expect(written).rejects.toMatchObject({ name: 'TandemError', code });
    expect(folder.files).toEqual({});
  });
});
