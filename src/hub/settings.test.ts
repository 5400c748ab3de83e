import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { cacheFolder, hubSettings, proxyHint } from './settings.ts';

afterEach(() => vi.unstubAllEnvs());

test('where the cache is', () => {
  expect(cacheFolder({ HF_HUB_CACHE: '/a', HF_HOME: '/b' })).toBe('/a');
  expect(cacheFolder({ HF_HOME: '/b', XDG_CACHE_HOME: '/c' })).toBe('/b/hub');
  expect(cacheFolder({ XDG_CACHE_HOME: '/c' })).toBe('/c/huggingface/hub');
  expect(cacheFolder({ HF_HOME: '~/models' })).toBe(join(homedir(), 'models', 'hub'));
  expect(cacheFolder({ HF_HUB_CACHE: '~other/x' })).toBe('~other/x');
});

test('who has no home has the root, not the folder that happens to be current', () => {
  vi.stubEnv('HOME', '');
  expect(cacheFolder({})).toBe('/.cache/huggingface/hub');
});

test.each(['huggingface.co', 'ftp://x', 'https://me:secret@x', 'https://x?y', 'https://x#y'])(
  '%s is no endpoint',
  async (HF_ENDPOINT) => {
    // biome-ignore format: one thought a line
    const refused = expect(hubSettings({}, { HF_ENDPOINT, HF_TOKEN: 'x' })).rejects;
    await refused.toThrow(/HF_ENDPOINT is an http or https address/);
    await refused.not.toThrow('secret');
  },
);

test('a proxy that nobody uses is told', () => {
  expect(proxyHint({}, '20.0.0')).toBeUndefined();
  expect(proxyHint({ HTTPS_PROXY: 'http://p' }, '20.1.2')).toMatch(/HTTPS_PROXY is set and not used: .*Node 20\.1\.2/);
  expect(proxyHint({ https_proxy: 'http://p' }, '24.0.0')).toMatch(/NODE_USE_ENV_PROXY=1/);
  expect(proxyHint({ https_proxy: 'http://p', NODE_USE_ENV_PROXY: '1' }, '24.0.0')).toBeUndefined();
});
