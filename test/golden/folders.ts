/** Whole Hugging Face folders in memory, as publishers have them: every matrix of the layers in FP8 with block scales, experts in INT4 groups. */
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { openHuggingFace } from '../../src/formats/huggingface.ts';
import { memoryFolder, memorySinkFolder } from '../../src/formats/memory-source.ts';
import { writeSafetensors } from '../../src/formats/safetensors-writer.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../../src/models/public-configs.ts';
import { type FolderFormat, synthesizeFolder } from '../../src/models/synthesize-folder.ts';

/** Blocks of 128 × 128 are not filled, groups of 32 are. */
const SIZES = {
  vocab_size: 272,
  hidden_size: 160,
  num_hidden_layers: 2,
  first_k_dense_replace: 1,
  num_attention_heads: 2,
  num_key_value_heads: 2,
  intermediate_size: 192,
  moe_intermediate_size: 160,
  q_lora_rank: 136,
  kv_lora_rank: 144,
  head_dim: 72,
  n_routed_experts: 4,
  num_experts: 4,
  num_local_experts: 4,
  n_group: 1,
  topk_group: 1,
  num_experts_per_tok: 2,
  max_position_embeddings: 1024,
};

/** A small one of this model's making; its vocabulary has 272 tokens. */
export async function folderCheckpoint(model: PublicModel, format: FolderFormat): Promise<Checkpoint> {
  const { files, tensors } = await synthesizeFolder({ ...PUBLIC_CONFIGS[model], ...SIZES }, { format, seed: 2 });
  const sink = memorySinkFolder();
  await writeSafetensors(sink, 'model.safetensors', tensors);
  return openHuggingFace(memoryFolder({ ...files, ...sink.files }));
}
