// Lets `node --import` run TypeScript sources, for worker threads in tests: types are taken off, nothing else changes.
import { readFileSync } from 'node:fs';
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';
import { transformSync } from 'rolldown/utils';

/** A hook of Node's module loader. */
export async function load(url, context, next) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return next(url, context);
  const path = fileURLToPath(url);
  return { format: 'module', shortCircuit: true, source: transformSync(path, readFileSync(path, 'utf8')).code };
}

if (!isMainThread) register(import.meta.url);
