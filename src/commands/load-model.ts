/** Loads a model with a progress bar, the same for every command, and says how its weights came into memory. */
import { type Engine, type LoadOptions, load } from '../index.ts';
import { ProgressBar, paint } from './terminal.ts';

/** Smaller models are there at once: nothing to tell unless a person looks. */
const WORTH_A_LINE = 1e9;

export async function loadModel(path: string, options: LoadOptions, signal?: AbortSignal): Promise<Engine> {
  const bar = new ProgressBar('loading');
  let engine: Engine;
  try {
    engine = await load(path, {
      ...options,
      signal,
      onProgress: (loaded, total) => bar.update(loaded, total),
    });
  } finally {
    bar.end();
  }
  for (const warning of engine.info.warnings)
    process.stderr.write(`${paint('yellow', `[placement] ${warning}`, process.stderr)}\n`);
  const { loaded } = engine.info.execution;
  if (loaded !== undefined && engine.info.weights >= WORTH_A_LINE)
    process.stderr.write(`${paint('dim', String(loaded), process.stderr)}\n`);
  return engine;
}
