/**
 * What a repository holds at one commit: files with sizes and checksums, from the hub's API. Names and checksums come from
 * a server, so they are checked before anything makes a path of them.
 */
import { TandemError } from '../errors.ts';
import { get, type HttpOptions, pieces, withRetries } from '../formats/http.ts';
import { isRecord } from '../formats/safetensors.ts';
import type { ModelReference } from './reference.ts';
import { explainRefusal } from './refusals.ts';
import type { HubSettings } from './settings.ts';
import type { SizedFile } from './variants.ts';

export interface HubFile extends SizedFile {
  /** Name of its blob in a cache: sha256 of a large file, git's sha1 of a small one. */
  readonly etag: string;
}

export interface Listing {
  readonly repository: string;
  /** Branch or tag that was asked for; undefined where a commit was. */
  readonly ref?: string;
  /** The commit it stands at, 40 hexadecimal digits. */
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** Answers of the API are bounded: a page has some hundred kilobytes. */
const PAGE_LIMIT = 1 << 26;
const MOST_PAGES = 1000;
export const COMMIT = /^[0-9a-f]{40}$/;
/** Separators of another system, and control characters (both sets of them). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const UNSAFE = /[\\:\x00-\x1f\x7f-\x9f]/;
/** Bytes that file systems take for one part of a path. */
const LONGEST_NAME = 255;
const ETAG = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** REMOTE_NOT_FOUND, REMOTE_DENIED, NETWORK_FAILED (also offline). */
export async function listRepository(
  { repository, revision = 'main' }: ModelReference,
  settings: HubSettings,
  http: HttpOptions = {},
): Promise<Listing> {
  refuseOffline(settings, repository);
  const api = `${settings.endpoint}/api/models/${repository}`;
  const options = hubOptions(settings, repository, revision, http);
  const head = await json(`${api}/revision/${encodeURIComponent(revision)}`, repository, options);
  const commit = isRecord(head.value) ? head.value.sha : undefined;
  if (typeof commit !== 'string' || !COMMIT.test(commit))
    throw strange(repository, 'no commit of 40 hexadecimal digits', settings);
  const files = new Map<string, HubFile>(); // pages may overlap
  let next: string | undefined = `${api}/tree/${commit}?recursive=true`;
  for (let page = 0; next !== undefined; page++) {
    if (page >= MOST_PAGES) throw strange(repository, `more than ${MOST_PAGES} pages of files`, settings);
    const { value, headers }: Answer = await json(next, repository, options);
    if (!Array.isArray(value)) throw strange(repository, 'no list of files', settings);
    for (const entry of value) {
      if (!isRecord(entry) || entry.type !== 'file') continue;
      const file = hubFile(entry, repository, settings);
      files.set(file.path, file);
    }
    next = nextPage(headers, next, settings, repository);
  }
  return { repository, ...(revision !== commit && { ref: revision }), commit, files: [...files.values()] };
}

/** Address of a file's bytes. The commit is part of it, so the file behind it never changes. */
export function fileUrl({ repository, commit }: Listing, path: string, { endpoint }: HubSettings): string {
  return `${endpoint}/${repository}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`;
}

/** How the hub is asked: with the token, and with refusals told in the user's words. */
export function hubOptions(
  settings: HubSettings,
  repository: string,
  revision: string | undefined,
  http: HttpOptions,
): HttpOptions {
  return {
    ...http,
    token: settings.token,
    explain: (response) => explainRefusal(response, { repository, revision, settings }),
  };
}

function refuseOffline({ offline }: HubSettings, repository: string): void {
  if (!offline) return;
  throw new TandemError('NETWORK_FAILED', {
    room: 'hub',
    rule: 'offline nothing is asked of a hub',
    given: `${repository} is wanted from one`,
    fix: 'leave --offline and HF_HUB_OFFLINE away',
  });
}

interface Answer {
  readonly value: unknown;
  readonly headers: Headers;
}

async function json(url: string, repository: string, options: HttpOptions): Promise<Answer> {
  return withRetries(`the list of files of ${repository}`, options, async () => {
    const { response } = await get(url, { accept: 'application/json' }, options);
    const decoder = new TextDecoder();
    let text = '';
    for await (const piece of pieces(response, options)) {
      text += decoder.decode(piece, { stream: true });
      if (text.length > PAGE_LIMIT) break;
    }
    try {
      return { value: JSON.parse(text + decoder.decode()) as unknown, headers: response.headers };
    } catch (cause) {
      throw new TandemError('NETWORK_FAILED', {
        room: 'hub',
        rule: 'a hub answers in JSON',
        given: `${url} gives ${JSON.stringify(text.slice(0, 60))}`,
        fix: 'check HF_ENDPOINT; a proxy or a login page may be in between',
        cause,
      });
    }
  });
}

function hubFile(
  { path, size, oid, lfs }: Record<string, unknown>,
  repository: string,
  settings: HubSettings,
): HubFile {
  const large = isRecord(lfs) ? lfs : undefined;
  const etag = large?.oid ?? oid;
  const bytes = large?.size ?? size;
  if (
    !isSafe(path) ||
    typeof etag !== 'string' ||
    !ETAG.test(etag) ||
    !Number.isSafeInteger(bytes) ||
    (bytes as number) < 0
  )
    throw strange(repository, `a file ${JSON.stringify({ path, bytes, etag }).slice(0, 160)}`, settings);
  return { path, size: bytes as number, etag };
}

/** A path that stays in its folder on any system, fits file systems, and says nothing to a terminal. */
function isSafe(path: unknown): path is string {
  if (typeof path !== 'string' || UNSAFE.test(path)) return false;
  const parts = path.split('/');
  return parts.every((part) => part !== '' && part !== '.' && part !== '..' && Buffer.byteLength(part) <= LONGEST_NAME);
}

/** `Link: <…>; rel="next"`, which has to stay on the hub: the token goes with it. */
function nextPage(headers: Headers, current: string, settings: HubSettings, repository: string): string | undefined {
  const link = /<([^>]+)>\s*;\s*rel="next"/.exec(headers.get('link') ?? '')?.[1];
  if (link === undefined) return undefined;
  const url = URL.canParse(link, current) ? new URL(link, current) : undefined;
  if (url?.origin === new URL(settings.endpoint).origin) return url.href;
  throw strange(repository, `a next page at ${url?.origin ?? JSON.stringify(link)}`, settings);
}

function strange(repository: string, given: string, { endpoint }: HubSettings): TandemError {
  return new TandemError('NETWORK_FAILED', {
    room: 'hub',
    rule: 'a hub answers as huggingface.co does',
    given: `of ${repository} ${endpoint} tells ${given}`,
    fix: 'check HF_ENDPOINT',
  });
}
