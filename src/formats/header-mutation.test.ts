/**
 * Both header parsers on damaged bytes: bytes flipped, cut out, repeated, numbers blown up, files cut short. The answer
 * is a checkpoint or a TandemError, never another exception, never a read beyond the file, never a long wait.
 * fast-check prints the seed of a failure.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TandemError } from '../errors.ts';
import type { Checkpoint, MetadataValue } from './checkpoint.ts';
import { openGguf } from './gguf.ts';
import { type GgufValue, metadataArray } from './gguf-encode.ts';
import { writeGguf } from './gguf-writer.ts';
import { openHuggingFace } from './huggingface.ts';
import { memoryFolder, memorySinkFolder } from './memory-source.ts';
import { safetensors } from './safetensors-bytes.ts';

type Mutation = (bytes: Uint8Array) => Uint8Array;

const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const at = (bytes: Uint8Array, where: number) => Math.floor(where * bytes.length);

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(place, fc.nat(255)).map(
    ([where, value]): Mutation =>
      (bytes) => {
        const out = bytes.slice();
        if (out.length > 0) out[at(out, where)] ^= value;
        return out;
      },
  ),
  // Eight bytes overwritten: counts, lengths and offsets.
  fc.tuple(place, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })).map(
    ([where, value]): Mutation =>
      (bytes) => {
        const out = bytes.slice();
        if (out.length >= 8)
          new DataView(out.buffer).setBigUint64(Math.min(at(out, where), out.length - 8), value, true);
        return out;
      },
  ),
  fc.tuple(place, fc.constantFrom(0n, 1n, 2n ** 31n, 2n ** 32n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 1n)).map(
    ([where, value]): Mutation =>
      (bytes) => {
        const out = bytes.slice();
        if (out.length >= 8)
          new DataView(out.buffer).setBigUint64(Math.min(at(out, where), out.length - 8), value, true);
        return out;
      },
  ),
  place.map(
    (where): Mutation =>
      (bytes) =>
        bytes.slice(0, at(bytes, where)),
  ),
  fc.tuple(place, fc.nat(40)).map(
    ([where, count]): Mutation =>
      (bytes) => {
        const from = at(bytes, where);
        return Uint8Array.from([...bytes.subarray(0, from), ...bytes.subarray(from + count)]);
      },
  ),
  fc.tuple(place, place, fc.nat(200)).map(
    ([from, to, count]): Mutation =>
      (bytes) => {
        const piece = bytes.subarray(at(bytes, from), at(bytes, from) + count);
        const cut = at(bytes, to);
        return Uint8Array.from([...bytes.subarray(0, cut), ...piece, ...bytes.subarray(cut)]);
      },
  ),
);

const METADATA = new Map<string, GgufValue>([
  ['general.architecture', { type: 'string', value: 'llama' }],
  ['general.alignment', { type: 'u32', value: 32 }],
  ['tokens', { type: 'array', value: metadataArray('string', ['a', 'bc', '水', 'x'.repeat(50)]) }],
  ['scores', { type: 'array', value: metadataArray('f32', [1, 2, 3]) }],
  ['big', { type: 'u64', value: 2n ** 60n }],
  [
    'nested',
    { type: 'array', value: metadataArray('array', [metadataArray('u8', [1, 2]), metadataArray('string', ['y'])]) },
  ],
]);

async function ggufBytes(): Promise<Uint8Array> {
  const folder = memorySinkFolder();
  const tensors = ['token_embd.weight', 'blk.0.ffn_up.weight', 'output_norm.weight'].map((name, i) => ({
    name,
    shape: i === 2 ? [32] : [2, 32],
    format: ['q8_0', 'q4_0', 'f32'][i],
    data: () => [new Uint8Array([68, 36, 128][i])],
  }));
  await writeGguf(folder, 'm.gguf', { metadata: METADATA, tensors });
  return folder.files['m.gguf'];
}

function visit(value: MetadataValue): void {
  if (typeof value !== 'object') return;
  const all = value.toArray();
  expect(all.length).toBe(value.length);
  all.forEach(visit);
  if (value.length > 0) visit(value.at(value.length - 1));
}

/** Opens, and where that works uses everything there is. True for a checkpoint, false for a clear refusal. */
async function attempt(open: () => Promise<Checkpoint>): Promise<boolean> {
  const memory = process.memoryUsage().arrayBuffers;
  try {
    const checkpoint = await open();
    for (const value of checkpoint.metadata.values()) visit(value);
    for (const tensor of checkpoint.tensors.values()) {
      const bytes = await checkpoint.readTensor(tensor.name);
      expect(bytes.length).toBe(tensor.bytes);
    }
    await checkpoint.close();
    return true;
  } catch (error) {
    if (!(error instanceof TandemError)) throw error;
    expect(error.message).toMatch(/^\[formats\] /);
    return false;
  } finally {
    expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(64 << 20);
  }
}

async function check(original: Uint8Array, open: (bytes: Uint8Array) => Promise<Checkpoint>): Promise<void> {
  expect(await attempt(() => open(original))).toBe(true);
  let opened = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), async (mutations) => {
      const bytes = mutations.reduce((current, mutate) => mutate(current), original);
      if (await attempt(() => open(bytes))) opened++;
      else refused++;
    }),
    { numRuns: 3000 },
  );
  // Both outcomes must occur, or the mutations are too tame or too wild to mean anything.
  expect(opened).toBeGreaterThan(0);
  expect(refused).toBeGreaterThan(0);
}

describe('damaged headers', () => {
  it('of GGUF', async () => {
    await check(await ggufBytes(), (bytes) => openGguf(memoryFolder({ 'm.gguf': bytes }), 'm.gguf'));
  });

  it('of GGUF, every byte of the header with every bit flipped', async () => {
    const original = await ggufBytes();
    const dataBytes = 68 + 28 + 36 + 28 + 128;
    for (let i = 0; i < original.length - dataBytes; i++) {
      for (let bit = 0; bit < 8; bit++) {
        const bytes = original.slice();
        bytes[i] ^= 1 << bit;
        await attempt(() => openGguf(memoryFolder({ 'm.gguf': bytes }), 'm.gguf'));
      }
    }
  });

  const header = {
    __metadata__: { format: 'pt' },
    'model.embed_tokens.weight': { dtype: 'BF16', shape: [4, 8], data_offsets: [0, 64] },
    'model.norm.weight': { dtype: 'F32', shape: [8], data_offsets: [64, 96] },
  };

  it('of safetensors', async () => {
    await check(safetensors(header, 96), (bytes) =>
      openHuggingFace(memoryFolder({ 'config.json': '{}', 'model.safetensors': bytes })),
    );
  });

  it('of safetensors indexes and configs', async () => {
    const index = {
      weight_map: Object.fromEntries(
        Object.keys(header)
          .slice(1)
          .map((name) => [name, 'a.safetensors']),
      ),
    };
    for (const file of ['model.safetensors.index.json', 'config.json']) {
      const files = {
        'config.json': new TextEncoder().encode('{"model_type":"llama"}'),
        'model.safetensors.index.json': new TextEncoder().encode(JSON.stringify(index)),
        'a.safetensors': safetensors(header, 96),
      };
      await check(files[file as keyof typeof files], (bytes) =>
        openHuggingFace(memoryFolder({ ...files, [file]: bytes })),
      );
    }
  });
});
