/**
 * Finds and loads the native addon: `build/tandem.node` of a checkout, else the platform's package beside an installed one.
 * The one place that knows where it is; says what to do where it cannot be had.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TandemError } from '../../errors.ts';
import type { NativeBinding } from './binding.ts';
import { type Platform, packageFor } from './platform.ts';

// src/backend/native/ and dist/backend/native/ are equally deep.
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

const BUILT = join(ROOT, 'build', 'tandem.node');

const BUILD =
  'run npm run build:native (Debian, Ubuntu: apt-get install -y cmake make g++), or use the backend "reference"';

let loaded: NativeBinding | undefined;

/** The addon, loaded once per thread. Throws NATIVE_UNAVAILABLE where it is not built, cannot be loaded or is of another version. */
export function loadNative(): NativeBinding {
  loaded ??= loadFrom(addonFile(), packageVersion());
  return loaded;
}

/** What was built here goes before what was installed. */
function addonFile(): string {
  if (existsSync(BUILT)) return BUILT;
  const name = packageFor(here());
  // A checkout without a build is told to build, not to install.
  if (name === undefined || existsSync(join(ROOT, 'native'))) return BUILT;
  try {
    return createRequire(import.meta.url).resolve(name);
  } catch (cause) {
    throw new TandemError('NATIVE_UNAVAILABLE', {
      room: 'native',
      rule: `the native core of this platform is the package ${name}`,
      given: 'it is not installed (an install with --omit=optional leaves it out)',
      fix: `npm install ${name}@${packageVersion()}, or use the backend "reference"`,
      cause,
    });
  }
}

function here(): Platform {
  if (process.platform !== 'linux') return { os: process.platform, cpu: process.arch };
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return { os: 'linux', cpu: process.arch, libc: header.glibcVersionRuntime ? 'glibc' : 'musl' };
}

/** Why there is no native core here, or undefined where there is one. */
export function nativeProblem(): TandemError | undefined {
  try {
    loadNative();
    return undefined;
  } catch (error) {
    return error as TandemError;
  }
}

/** Loads the addon at `file` and checks that it was built for `version`. */
export function loadFrom(file: string, version: string): NativeBinding {
  const unavailable = (rule: string, given: string, cause?: unknown) =>
    new TandemError('NATIVE_UNAVAILABLE', { room: 'native', rule, given, fix: BUILD, cause });
  if (!existsSync(file)) throw unavailable('the native core is built before it is used', `there is no ${file}`);
  let binding: NativeBinding;
  try {
    binding = createRequire(import.meta.url)(file) as NativeBinding;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw unavailable('the native core can be loaded', reason, error);
  }
  if (binding.version !== version)
    throw unavailable(`the native core is of version ${version}`, `${file} is of version ${binding.version}`);
  return binding;
}

/** Of this package; the native core and the kernels have the same. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;
}
