/** A tiny whole GGUF model in memory, and ways to break it where a reader looks. */
import { openGguf } from '../../src/formats/gguf.ts';
import { writeGguf } from '../../src/formats/gguf-writer.ts';
import { memoryFolder, memorySinkFolder } from '../../src/formats/memory-source.ts';
import { synthesize } from '../../src/models/synthesize.ts';

const CONFIG = {
  model_type: 'llama',
  vocab_size: 272,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-6,
  hidden_act: 'silu',
  tie_word_embeddings: false,
};

/** A llama of one layer and 272 words, some 100 kB, all f32; `shardBytes` makes a split set. Bytes by file name. */
export async function tinyGguf(shardBytes?: number): Promise<Readonly<Record<string, Uint8Array>>> {
  const folder = memorySinkFolder();
  const content = await synthesize(CONFIG, { name: 'tiny', mix: 'f32' });
  await writeGguf(folder, 'tiny.gguf', { ...content, shardBytes });
  return folder.files;
}

/** Where the parts of a tensor's description lie in the header: name, rank u32, dimensions u64 each, type u32, offset u64. */
export interface TensorHeader {
  readonly dimensions: number;
  readonly type: number;
  readonly offset: number;
}

export function findTensor(file: Uint8Array, name: string): TensorHeader {
  const dimensions = Buffer.from(file.buffer, file.byteOffset, file.length).indexOf(name) + name.length + 4;
  const rank = new DataView(file.buffer, file.byteOffset).getUint32(dimensions - 4, true);
  const type = dimensions + 8 * rank;
  return { dimensions, type, offset: type + 4 };
}

/** A copy with words written over. */
export function patched(file: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = file.slice();
  change(new DataView(copy.buffer));
  return copy;
}

/** Byte at which a tensor's data begins. */
export async function dataStart(file: Uint8Array, name: string): Promise<number> {
  const checkpoint = await openGguf(memoryFolder({ 'tiny.gguf': file }), 'tiny.gguf');
  return checkpoint.tensors.get(name)!.offset;
}
