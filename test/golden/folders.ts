/** Whole Hugging Face folders in memory, as publishers have them: every matrix of the layers in FP8 with block scales, experts in INT4 groups. */
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { openHuggingFace } from '../../src/formats/huggingface.ts';
import { memoryFolder, memorySinkFolder } from '../../src/formats/memory-source.ts';
import { writeSafetensors } from '../../src/formats/safetensors-writer.ts';
import { type FolderFormat, synthesizeFolder } from '../../src/models/synthesize-folder.ts';
import type { HuggingFaceConfig } from '../../src/models/synthetic.ts';

export async function folderCheckpoint(config: HuggingFaceConfig, format: FolderFormat): Promise<Checkpoint> {
  const { files, tensors } = await synthesizeFolder(config, { format, seed: 2 });
  const sink = memorySinkFolder();
  await writeSafetensors(sink, 'model.safetensors', tensors);
  return openHuggingFace(memoryFolder({ ...files, ...sink.files }));
}
