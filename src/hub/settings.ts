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
  return env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(huggingFaceHome(env), 'hub');
}

function huggingFaceHome(env: Environment): string {
  return env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
}

async function tokenOf(env: Environment, home: string): Promise<string | undefined> {
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  const text = given ?? (await readFile(env.HF_TOKEN_PATH || join(home, 'token'), 'utf8').catch(() => ''));
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

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return text.replace(/\/+$/, '');
  throw new TandemError('REQUEST_INVALID', {
    room: 'hub',
    rule: 'HF_ENDPOINT is an http or https address',
    given: text,
    fix: 'unset it for https://huggingface.co',
  });
}
