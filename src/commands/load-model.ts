/** Loads a model with a progress bar, the same for every command. */
import { defaultModelPath, type Engine, type LoadOptions, load } from '../index.ts';
import { ProgressBar } from './terminal.ts';

export async function loadModel(path: string | undefined, options: LoadOptions, signal?: AbortSignal): Promise<Engine> {
  const bar = new ProgressBar('loading');
  try {
    return await load(path ?? defaultModelPath(), {
      ...options,
      signal,
      onProgress: (loaded, total) => bar.update(loaded, total),
    });
  } finally {
    bar.end();
  }
}
