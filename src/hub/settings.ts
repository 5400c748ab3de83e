/** Where the hub is, who we are there, and where its files are kept: the variables that Hugging Face's own tools read. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { TandemError } from '../errors.ts';

export interface HubSettings {
  /** `https://huggingface.co`, or HF_ENDPOINT; without a slash at its end. */
  readonly endpoint: string;
  readonly token?: string;
  /** The folder of `models--org--name` folders. */
  readonly cache: string;
  /** Nothing is asked over the network. */
  readonly offline: boolean;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_HUB_OFFLINE. REQUEST_INVALID. */
export async function hubSettings(
  { offline = false }: { offline?: boolean } = {},
  env: Environment = process.env,
): Promise<HubSettings> {
  const home = huggingFaceHome(env);
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || 'https://huggingface.co'),
    token: await tokenOf(env, home),
    cache: cacheFolder(env),
    offline: offline || /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ''),
  };
}

/** The folder of `models--org--name` folders. */
export function cacheFolder(env: Environment = process.env): string {
  return expanded(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE) || join(huggingFaceHome(env), 'hub');
}

function huggingFaceHome(env: Environment): string {
  return expanded(env.HF_HOME) || join(expanded(env.XDG_CACHE_HOME) || join(userHome(), '.cache'), 'huggingface');
}

/** `~` where no shell has seen it: in files of containers and services. */
function expanded(path: string | undefined): string | undefined {
  return path?.replace(/^~(?=\/|$)/, userHome);
}

/** A user without a home (a number in a container) has the root, where Docker puts such users too. */
export function userHome(): string {
  try {
    return homedir() || '/';
  } catch {
    return '/';
  }
}

async function tokenOf(env: Environment, home: string): Promise<string | undefined> {
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  const text = given ?? (await readFile(expanded(env.HF_TOKEN_PATH) || join(home, 'token'), 'utf8').catch(() => ''));
  const token = text.trim();
  if (/[^\x21-\x7e]/.test(token))
    throw new TandemError('REQUEST_INVALID', {
      room: 'hub',
      rule: 'a token is one word',
      given: 'HF_TOKEN (or the token file) holds spaces, lines or other signs',
      fix: 'copy the token again: it begins with hf_',
    });
  return token === '' ? undefined : token;
}

/** What a person behind a proxy wants to know who cannot reach a hub: Node's `fetch` takes none by itself. */
export function proxyHint(env: Environment = process.env, version = process.versions.node): string | undefined {
  const name = ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'].find(
    (key) => env[key],
  );
  if (name === undefined || (env.NODE_USE_ENV_PROXY === '1' && Number.parseInt(version, 10) >= 24)) return undefined;
  return `${name} is set and not used: that takes Node 24 and NODE_USE_ENV_PROXY=1 (this is Node ${version})`;
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const named = url?.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '';
  if (!named && (url.protocol === 'https:' || url.protocol === 'http:')) return text.replace(/\/+$/, '');
  throw new TandemError('REQUEST_INVALID', {
    room: 'hub',
    rule: 'HF_ENDPOINT is an http or https address, without a user, a question mark or a #',
    given: text.replace(/\/\/[^/@]*@/, '//…@'),
    fix: 'unset it for https://huggingface.co',
  });
}
