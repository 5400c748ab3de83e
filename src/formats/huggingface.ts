/**
 * A Hugging Face model folder: `config.json`, weights in `model.safetensors` or in the shards that
 * `model.safetensors.index.json` lists, and the tokenizer's files, which are read when asked for.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint, TensorInfo } from './checkpoint.ts';
import { isRecord, readSafetensors } from './safetensors.ts';
import type { SourceFolder } from './source.ts';
import { checkExtents, closeAll, openAll, tensorReader } from './tensor-files.ts';

export const SINGLE_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';
/** tokenizer.json of a 200k vocabulary has about 20 MB. */
const TEXT_LIMIT = 1 << 28;

export async function openHuggingFace(folder: SourceFolder): Promise<Checkpoint> {
  const config = await readJson(folder, 'config.json');
  if (config === undefined) {
    throw new TandemError('FILE_NOT_FOUND', {
      room: 'formats',
      rule: 'a Hugging Face model folder has a config.json',
      given: `there is none in ${folder.name}`,
      fix: 'fetch it beside the weights',
    });
  }
  const generationConfig = await readJson(folder, 'generation_config.json');
  const index = await readIndex(folder);
  const names = index === undefined ? [SINGLE_FILE] : [...new Set(index.values())].sort();
  const { files, headers } = await openAll(
    folder,
    names,
    (name) => missing(folder, name, index !== undefined),
    async (source, file) => {
      const found = await readSafetensors(source, file);
      checkExtents(
        [source],
        found.map((tensor) => ({ ...tensor, file: 0 })),
      );
      return found;
    },
  );
  try {
    const tensors = new Map<string, TensorInfo>();
    // The index decides which file a tensor comes from; a tensor it does not list is not part of the model.
    for (const tensor of headers.flat()) {
      if (index === undefined || index.get(tensor.name) === names[tensor.file]) tensors.set(tensor.name, tensor);
    }
    for (const [tensor, file] of index ?? []) {
      if (tensors.has(tensor)) continue;
      throw new TandemError('FORMAT_INVALID', {
        room: 'formats',
        rule: `tensors are in the files that ${INDEX_FILE} says`,
        given: `${folder.name}: "${tensor}" is not in ${file}`,
        fix: 'the files do not belong together; fetch them again',
      });
    }
    return {
      kind: 'huggingface',
      name: folder.name,
      files,
      tensors,
      metadata: new Map(),
      config,
      generationConfig,
      tokenizerJson: () => readJson(folder, 'tokenizer.json'),
      tokenizerConfig: () => readJson(folder, 'tokenizer_config.json'),
      tiktokenModel: () => readText(folder, 'tiktoken.model'),
      chatTemplateFile: () => readText(folder, 'chat_template.jinja'),
      readTensor: tensorReader(folder.name, files, tensors),
      close: () => closeAll(files),
    };
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

/** Tensor → file, where there is an index. */
async function readIndex(folder: SourceFolder): Promise<Map<string, string> | undefined> {
  const index = await readJson(folder, INDEX_FILE);
  if (index === undefined) return undefined;
  const map = index.weight_map;
  if (!isRecord(map) || !Object.values(map).every((file) => typeof file === 'string' && /^[^/\\]+$/.test(file))) {
    throw new TandemError('FORMAT_INVALID', {
      room: 'formats',
      rule: `${INDEX_FILE} has a weight_map from tensor names to files of the same folder`,
      given: `${folder.name}: ${JSON.stringify(map)?.slice(0, 120) ?? 'it has none'}`,
      fix: 'fetch the index again',
    });
  }
  return new Map(Object.entries(map as Record<string, string>));
}

function missing(folder: SourceFolder, name: string, listed: boolean): TandemError {
  return new TandemError('FILE_NOT_FOUND', {
    room: 'formats',
    rule: listed ? `a model needs every file that ${INDEX_FILE} lists` : `a model has ${SINGLE_FILE} or ${INDEX_FILE}`,
    given: `there is no ${name} in ${folder.name}`,
    fix: 'fetch the missing file into the same folder',
  });
}

/** The JSON object in a file; undefined where there is no file. */
async function readJson(folder: SourceFolder, file: string): Promise<Record<string, unknown> | undefined> {
  const text = await readText(folder, file);
  if (text === undefined) return undefined;
  let value: unknown;
  let given = 'it is another value';
  try {
    value = JSON.parse(text);
  } catch (error) {
    given = (error as Error).message;
  }
  if (isRecord(value)) return value;
  throw new TandemError('FORMAT_INVALID', {
    room: 'formats',
    rule: `${file} holds a JSON object`,
    given: `${folder.name}: ${given}`,
    fix: 'fetch the file again',
  });
}

async function readText(folder: SourceFolder, file: string): Promise<string | undefined> {
  const source = await folder.open(file);
  if (source === undefined) return undefined;
  try {
    if (source.size > TEXT_LIMIT) {
      throw new TandemError('FORMAT_INVALID', {
        room: 'formats',
        rule: `${file} has at most ${TEXT_LIMIT} bytes`,
        given: `${folder.name}: it has ${source.size}`,
      });
    }
    return new TextDecoder().decode(await source.read(0, source.size));
  } finally {
    await source.close();
  }
}
