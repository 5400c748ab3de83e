/** From a model's name to files, downloaded where they are not here, with that library's progress callback. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { defaultModelPath } from '../engine/load.ts';
import { checkOptionNames } from '../engine/option-names.ts';
import { TandemError } from '../errors.ts';
import { hubSettings, localModel, parseReference, pull } from '../hub/index.ts';

/** What `progress_callback` is told. */
export type ProgressInfo =
  | { readonly status: 'initiate' | 'download' | 'done'; readonly name: string; readonly file: string }
  | {
      readonly status: 'progress';
      readonly name: string;
      readonly file: string;
      /** Per cent. */
      readonly progress: number;
      /** Bytes. */
      readonly loaded: number;
      readonly total: number;
    }
  | { readonly status: 'ready'; readonly task: string; readonly model: string };

export interface HubOptions {
  progress_callback?: ((info: ProgressInfo) => void) | null;
  /** Branch, tag or commit. */
  revision?: string;
  /** Never download. */
  local_files_only?: boolean;
  /** Folder of the cache, instead of Hugging Face's. */
  cache_dir?: string | null;
}

export const HUB_OPTIONS = [
  'progress_callback',
  'revision',
  'local_files_only',
  'cache_dir',
] as const satisfies readonly (keyof HubOptions)[];

/** As `env` there; the variables of Hugging Face's tools (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE) count too. */
export interface Environment {
  /** False: nothing is downloaded. */
  allowRemoteModels: boolean;
  /** False: names are those of the hub and its cache, never paths. */
  allowLocalModels: boolean;
  /** A folder in which a name is looked for before the cache. Default: none. */
  localModelPath: string | null;
  /** Folder of the cache. Default: that of Hugging Face's tools. */
  cacheDir: string | null;
  /** Another hub. Default: HF_ENDPOINT, else https://huggingface.co. */
  remoteHost: string | null;
  /** Settings of ONNX Runtime are taken and have no effect: `threads` of a pipeline's options is what counts. */
  readonly backends: { readonly onnx: Record<string, unknown> & { readonly wasm: Record<string, unknown> } };
  /** How that library keeps files, without effect: there is one cache. */
  useFS?: boolean;
  useFSCache?: boolean;
  useBrowserCache?: boolean;
  useCustomCache?: boolean;
  customCache?: unknown;
  remotePathTemplate?: string;
  logLevel?: unknown;
}

export const env: Environment = {
  allowRemoteModels: true,
  allowLocalModels: true,
  localModelPath: null,
  cacheDir: null,
  remoteHost: null,
  backends: { onnx: { wasm: {} } },
};

/** A path that `load` takes. Errors of `pull`; FILE_NOT_FOUND where nothing may be downloaded. */
export async function modelFolder(model: string | null | undefined, options: HubOptions = {}): Promise<string> {
  checkOptionNames('from_pretrained', options, HUB_OPTIONS);
  if (model === null || model === undefined) return defaultModelPath();
  const beside = env.localModelPath && env.allowLocalModels ? join(env.localModelPath, model) : undefined;
  if (beside !== undefined && existsSync(beside)) return localModel(beside);
  if (!env.allowLocalModels && parseReference(model) === undefined) throw notAllowed(model);
  const found = await hubSettings();
  const settings = {
    ...found,
    cache: options.cache_dir ?? env.cacheDir ?? found.cache,
    endpoint: env.remoteHost?.replace(/\/+$/, '') ?? found.endpoint,
    offline: found.offline || options.local_files_only === true || !env.allowRemoteModels,
  };
  const name = options.revision === undefined || model.includes('@') ? model : `${model}@${options.revision}`;
  try {
    return await localModel(existingFirst(model, name), settings.cache);
  } catch (error) {
    const reference = parseReference(name);
    const absent = error instanceof TandemError && error.code === 'FILE_NOT_FOUND';
    if (!absent || settings.offline || reference === undefined) throw error;
    const tell = options.progress_callback ?? (() => {});
    const file = { name: reference.repository, file: name };
    tell({ status: 'initiate', ...file });
    const { path } = await pull(reference, settings, {
      onStart: () => tell({ status: 'download', ...file }),
      onProgress: ({ done, total }) =>
        tell({ status: 'progress', ...file, progress: total > 0 ? (done / total) * 100 : 100, loaded: done, total }),
    });
    tell({ status: 'done', ...file });
    return path;
  }
}

/** A revision belongs to names of the hub; a path stays a path. */
function existingFirst(model: string, name: string): string {
  return parseReference(model) === undefined ? model : name;
}

function notAllowed(model: string): TandemError {
  return new TandemError('FILE_NOT_FOUND', {
    room: 'transformers',
    rule: 'with env.allowLocalModels = false a model is organization/model[:QUANT]',
    given: model,
  });
}
