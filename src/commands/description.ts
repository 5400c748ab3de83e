/** Models that are only described: a `config.json`, a folder that holds nothing else, or a known model by its name. */
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { TandemError } from '../errors.ts';
import { fileError } from '../formats/file-source.ts';
import { isRecord } from '../formats/safetensors.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../models/public-configs.ts';
import type { HuggingFaceConfig } from '../models/synthetic.ts';

/** The known model or the path of the `config.json` that is meant; undefined where a name means weights. */
export function descriptionOf(given: string): string | undefined {
  const path = given.endsWith('.json') && !given.endsWith('.index.json');
  if (path || Object.hasOwn(PUBLIC_CONFIGS, given)) return given;
  return isDescription(given) ? `${given}/config.json` : undefined;
}

/** A folder with nothing but a description. */
function isDescription(path: string): boolean {
  return (
    statSync(path, { throwIfNoEntry: false })?.isDirectory() === true &&
    existsSync(`${path}/config.json`) &&
    !existsSync(`${path}/model.safetensors`) &&
    !existsSync(`${path}/model.safetensors.index.json`)
  );
}

/** What `descriptionOf` named, read. FILE_NOT_FOUND, FILE_IO or FORMAT_INVALID. */
export async function configOf(given: string): Promise<HuggingFaceConfig> {
  if (Object.hasOwn(PUBLIC_CONFIGS, given)) return PUBLIC_CONFIGS[given as PublicModel];
  const text = await readFile(given, 'utf8').catch((cause) => {
    throw fileError('read', given, cause);
  });
  try {
    const config: unknown = JSON.parse(text);
    if (isRecord(config)) return config;
  } catch (cause) {
    throw notADescription(given, (cause as Error).message, cause);
  }
  throw notADescription(given, 'it holds no object');
}

function notADescription(given: string, what: string, cause?: unknown): TandemError {
  return new TandemError('FORMAT_INVALID', {
    room: 'cli',
    rule: 'a description of a model is the config.json of a Hugging Face repository',
    given: `${given}: ${what}`,
    fix: `known models need no file: ${Object.keys(PUBLIC_CONFIGS).join(', ')}`,
    cause,
  });
}
