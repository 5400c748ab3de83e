/** Opens whatever checkpoint a path names: a GGUF file, any file of a split set, a Hugging Face folder, a folder of one GGUF. */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from './checkpoint.ts';
import { fileFolder, isFolder, splitPath } from './file-source.ts';
import { openGguf } from './gguf.ts';
import { parseShardName, shardName } from './gguf-types.ts';
import { INDEX_FILE, openHuggingFace, SINGLE_FILE } from './huggingface.ts';
import type { SourceFolder } from './source.ts';

/**
 * Reads headers only. FILE_NOT_FOUND where there is nothing, FORMAT_INVALID where it is no checkpoint or a broken one.
 * A folder with both `config.json` and safetensors is a Hugging Face model, also where GGUF files lie beside them.
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  if (await isFolder(path)) return openCheckpointIn(fileFolder(path));
  const { folder, file } = splitPath(path);
  if (file.endsWith('.safetensors') || file === 'config.json' || file === INDEX_FILE) {
    throw new TandemError('FORMAT_INVALID', {
      room: 'formats',
      rule: 'a Hugging Face model is opened by its folder',
      given: `${file} is one file of it`,
      fix: `pass ${folder}`,
    });
  }
  return openGguf(fileFolder(folder), file);
}

/** The same of a folder wherever it is: on a disk, in memory, on a server. */
async function openCheckpointIn(folder: SourceFolder): Promise<Checkpoint> {
  const files = await folder.list();
  const weights = files.includes(SINGLE_FILE) || files.includes(INDEX_FILE);
  if (weights && files.includes('config.json')) return openHuggingFace(folder);
  const sets = new Set(files.filter((file) => file.endsWith('.gguf')).map(firstOfSet));
  if (sets.size === 1) return openGguf(folder, [...sets][0]);
  if (weights) return openHuggingFace(folder); // says what is missing
  throw new TandemError(sets.size === 0 ? 'FILE_NOT_FOUND' : 'FORMAT_INVALID', {
    room: 'formats',
    rule: `a model folder has config.json and ${SINGLE_FILE} (or its index), or one GGUF model`,
    given:
      sets.size === 0
        ? `${folder.name} has neither`
        : `${folder.name} has ${sets.size} GGUF models: ${[...sets].slice(0, 8).join(', ')}`,
    fix: sets.size === 0 ? 'check the path' : 'pass the path of one of them',
  });
}

function firstOfSet(file: string): string {
  const shard = parseShardName(file);
  return shard === undefined ? file : shardName(shard.stem, 0, shard.count);
}
