/** Models that are only described: a `config.json`, a folder that holds nothing else, or a known model by its name. */
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { TandemError } from '../errors.ts';
import { fileError } from '../formats/file-source.ts';
import { isRecord } from '../formats/safetensors.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../models/public-configs.ts';
import type { HuggingFaceConfig } from '../models/synthetic.ts';
import { nearest } from '../nearest.ts';

/** Names that mean one of the known models. */
const ALIASES: Readonly<Record<string, string>> = { mixtral: 'mixtral-8x7b' };

/**
 * The known model or the path of the `config.json` that is meant; undefined where a name means weights. FILE_NOT_FOUND for
 * the misspelt name of a known model.
 */
export function descriptionOf(given: string): string | undefined {
  if (existsSync(given)) return isDescription(given) ? `${given}/config.json` : jsonOf(given);
  const name = ALIASES[given] ?? given;
  if (Object.hasOwn(PUBLIC_CONFIGS, name)) return name;
  const known = Object.keys(PUBLIC_CONFIGS);
  const near = /^[\w.-]+$/.test(given) && !/\.(?:gguf|json)$/.test(given) ? nearest(given, known) : undefined;
  if (near === undefined) return jsonOf(given);
  throw new TandemError('FILE_NOT_FOUND', {
    room: 'cli',
    rule: 'a model is a file, a folder, organization/model of a hub, or a known one',
    given: `there is no ${given} here`,
    fix: `did you mean ${near}? Known: ${known.join(', ')}`,
  });
}

function jsonOf(given: string): string | undefined {
  return given.endsWith('.json') && !given.endsWith('.index.json') ? given : undefined;
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
