import { expect, it } from 'vitest';
import { PLATFORMS, packageFor, packageName } from './platform.ts';

it('names the package of a platform that has one', () => {
  expect(packageFor({ os: 'linux', cpu: 'x64', libc: 'glibc' })).toBe('tandem-linux-x64-glibc');
  expect(new Set(PLATFORMS.map(packageName)).size).toBe(PLATFORMS.length);
});

it.each([
  { os: 'linux', cpu: 'x64', libc: 'musl' },
  { os: 'linux', cpu: 'arm64', libc: 'glibc' },
  { os: 'darwin', cpu: 'arm64' },
] as const)('knows of none for $os $cpu', (platform) => {
  expect(packageFor(platform)).toBeUndefined();
});
