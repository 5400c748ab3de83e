/** From a name to files in the cache: list, choose, look whether the disk has room, download, name. */
import { mkdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { TandemError } from '../errors.ts';
import type { HttpOptions } from '../formats/http.ts';
import type { BlobSpec, BlobTuning } from './blob.ts';
import { Cache } from './cache.ts';
import { downloadBlobs } from './download.ts';
import { fileUrl, type HubFile, hubOptions } from './listing.ts';
import { partialBytes } from './partial-file.ts';
import { formatReference, type ModelReference } from './reference.ts';
import { findModel } from './remote.ts';
import { type HubSettings, proxyHint } from './settings.ts';
import { chooseVariant, gigabytes } from './variants.ts';

export interface PullProgress {
  /** Bytes that are there, of all. */
  readonly done: number;
  readonly total: number;
  /** Of `done`, what this pull has brought. */
  readonly fetched: number;
}

export interface PullOptions extends Partial<BlobTuning> {
  readonly connections?: number;
  readonly http?: HttpOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: PullProgress) => void;
  /** What a person wants to know meanwhile. */
  readonly onNotice?: (text: string) => void;
  /** Told once, before anything large comes: what was chosen and how much of it is missing. */
  readonly onStart?: (plan: { name: string; files: number; bytes: number; missing: number }) => void;
}

export interface Pulled {
  /** `org/name:QUANT`. */
  readonly name: string;
  /** What `load` takes: the GGUF file (the first of a set), or the folder. */
  readonly path: string;
  readonly commit: string;
  readonly bytes: number;
  /** Bytes that came over the network. */
  readonly fetched: number;
}

/**
 * Downloads a model, or what is missing of it. Errors: REMOTE_NOT_FOUND, REMOTE_DENIED, NETWORK_FAILED, DOWNLOAD_DAMAGED,
 * DISK_FULL, FILE_IO, REQUEST_INVALID (several quantizations), ABORTED. After any of them, and after the process was
 * killed, the same call goes on where it was.
 */
export async function pull(
  reference: ModelReference,
  settings: HubSettings,
  options: PullOptions = {},
): Promise<Pulled> {
  const { signal, onNotice } = options;
  let hint = proxyHint();
  let told = { why: '', at: Number.NEGATIVE_INFINITY };
  const http: HttpOptions = {
    ...options.http,
    signal,
    onPause: (why, ms) => {
      // Connections fail together; a person wants to read it once.
      if (why === told.why && performance.now() - told.at < ms + ONCE_MS) return;
      told = { why, at: performance.now() };
      onNotice?.(`${why}; trying again in ${Math.max(1, Math.round(ms / 1000))} s`);
      if (hint !== undefined && why.includes('cannot be reached')) onNotice?.(hint);
      hint = undefined;
    },
  };
  const model = await findModel(reference, settings, http);
  const { repository, commit } = model;
  const variant = chooseVariant(repository, model.variants, reference.quant);
  const cache = new Cache(settings.cache);
  const name = formatReference({ repository, quant: variant.name, revision: reference.revision });
  const contents = new Map(variant.files.map((file) => [file.etag, file])); // two names may be one file
  const total = [...contents.values()].reduce((sum, { size }) => sum + size, 0);
  const missing = await missingBytes(cache, repository, [...contents.values()]);
  await checkSpace(cache.folder, name, total, missing);
  options.onStart?.({ name, files: variant.files.length, bytes: total, missing });

  let [done, fetched] = [0, 0];
  const count = (bytes: number) => {
    done += bytes;
    options.onProgress?.({ done: Math.min(total, Math.max(0, done)), total, fetched });
  };
  await downloadBlobs(
    variant.files.map((file): BlobSpec => ({ ...file, url: fileUrl(model, file.path, settings) })),
    {
      ...options,
      http: hubOptions(settings, repository, reference.revision, http),
      place: ({ etag }) => cache.place(repository, etag),
      onBytes: (bytes) => {
        fetched += bytes;
        count(bytes);
      },
      onResumed: count,
      onDropped: (bytes) => count(-bytes),
    },
  );
  await cache.link(repository, commit, variant.files, model.ref);
  const folder = join(cache.repositoryFolder(repository), 'snapshots', commit);
  const path = variant.kind === 'gguf' ? join(folder, ...variant.files[0].path.split('/')) : folder;
  return { name, path, commit, bytes: total, fetched };
}

async function missingBytes(cache: Cache, repository: string, files: readonly HubFile[]): Promise<number> {
  let missing = 0;
  for (const { etag, size } of files) {
    const { blob, partial } = cache.place(repository, etag);
    if ((await stat(blob).catch(() => undefined))?.size === size) continue;
    missing += size - (await partialBytes(partial, size));
  }
  return missing;
}

/** The same trouble within so long is told once. */
const ONCE_MS = 1_000;

/** Room that stays free: a disk that is full to the last byte troubles everybody on it. */
const SPARE = 256 << 20;

async function checkSpace(folder: string, name: string, total: number, missing: number): Promise<void> {
  if (missing === 0) return;
  await mkdir(folder, { recursive: true }).catch((cause: Error) => {
    throw new TandemError('FILE_IO', {
      room: 'hub',
      rule: 'the cache of models can be written',
      given: cause.message,
      fix: 'set HF_HUB_CACHE or HF_HOME to a folder of yours',
      cause,
    });
  });
  const { bavail, bsize, blocks } = await statfs(folder);
  const free = bavail * bsize;
  const spare = Math.min(SPARE, missing);
  if (blocks === 0 || free >= missing + spare) return;
  throw new TandemError('DISK_FULL', {
    room: 'hub',
    rule: `the disk has room for what is downloaded, and ${gigabytes(spare)} stay free`,
    given: `${name} has ${gigabytes(total)}, ${gigabytes(missing)} are missing, ${gigabytes(free)} are free at ${folder}`,
    fix: 'free space (tandem list, tandem rm), choose a smaller quantization, or set HF_HUB_CACHE to another disk',
  });
}
