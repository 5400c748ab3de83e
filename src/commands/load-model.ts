/** Loads a model with a progress bar, the same for every command. */
import { type Engine, type LoadOptions, load } from '../index.ts';
import { ProgressBar } from './terminal.ts';

export async function loadModel(path: string, options: LoadOptions, signal?: AbortSignal): Promise<Engine> {
  const bar = new ProgressBar('loading');
  try {
    return await load(path, {
      ...options,
      signal,
      onProgress: (loaded, total) => bar.update(loaded, total),
    });
  } finally {
    bar.end();
  }
}
