/**
 * Finds and loads the native addon, `build/tandem.node` in the package's root. The one place that knows where it is; says
 * what to do where it cannot be had.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TandemError } from '../../errors.ts';
import type { NativeBinding } from './binding.ts';

// src/backend/native/ and dist/backend/native/ are equally deep.
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

const BUILD =
  'run npm run build:native (Debian, Ubuntu: apt-get install -y cmake make g++), or use the backend "reference"';

let loaded: NativeBinding | undefined;

/** The addon, loaded once per thread. Throws NATIVE_UNAVAILABLE where it is not built, cannot be loaded or is of another version. */
export function loadNative(): NativeBinding {
  loaded ??= loadFrom(join(ROOT, 'build', 'tandem.node'), packageVersion());
  return loaded;
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

function packageVersion(): string {
  return (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;
}
