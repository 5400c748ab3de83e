/** Which package carries the native core of a platform. The table of docs/reference/packages.md; `scripts/pack.mjs` reads it too. */

export interface Platform {
  /** As in Node: `linux`, `darwin`, `win32`. */
  readonly os: string;
  /** `x64`, `arm64`. */
  readonly cpu: string;
  /** Linux only: the C library. */
  readonly libc?: 'glibc' | 'musl';
}

/** Platforms with a package. Others build from the sources, or take the `reference` backend. */
export const PLATFORMS: readonly Platform[] = [{ os: 'linux', cpu: 'x64', libc: 'glibc' }];

/** `tandem-linux-x64-glibc`. */
export function packageName({ os, cpu, libc }: Platform): string {
  return ['tandem', os, cpu, ...(libc ? [libc] : [])].join('-');
}

/** The package of `here`, or undefined where none is made. */
export function packageFor(here: Platform): string | undefined {
  const known = PLATFORMS.some(({ os, cpu, libc }) => os === here.os && cpu === here.cpu && libc === here.libc);
  return known ? packageName(here) : undefined;
}

/** The package with the compiled kernels of NVIDIA GPUs: never installed unless asked for. */
export const CUDA_PACKAGE = 'tandem-cuda-linux-x64';
/** What it holds: the kernels, and what compiled them: `{"cuda": "13.0"}`. */
export const CUDA_FILES = { kernels: 'tandem-cuda.fatbin', facts: 'tandem-cuda.json' } as const;
