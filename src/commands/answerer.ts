/** Where an answer comes from: the server that was named, one that runs here with the same model, or this process. */
import { readModelCard } from '../engine/model-card.ts';
import type { Engine } from '../index.ts';
import { DEFAULT_SERVER_OPTIONS } from '../server/context.ts';
import { loadModel } from './load-model.ts';
import { loadOptions, type ModelFlags } from './options.ts';
import { type Answerer, connect, findServer, RemoteAnswerer } from './remote.ts';
import { paint } from './terminal.ts';

export interface ServerFlags {
  /** An address, or false for "load it here". */
  server?: string | false;
}

export async function openAnswerer(
  path: string,
  flags: ModelFlags & ServerFlags,
  signal: AbortSignal,
): Promise<Answerer> {
  const key = process.env.TANDEM_API_KEY;
  if (typeof flags.server === 'string') return new RemoteAnswerer(await connect(flags.server, key));
  const options = loadOptions(flags);
  const own = Object.entries(options).some(
    ([name, value]) =>
      value !== undefined &&
      !(name === 'backend' && value === 'native') &&
      !(name === 'load' && value === 'auto') &&
      value !== false,
  );
  // Who asks for a backend, threads or a context of his own wants this process.
  if (flags.server === undefined && !own) {
    const { digest } = await readModelCard(path);
    const found = await findServer(DEFAULT_SERVER_OPTIONS.port, digest, key);
    if (found) {
      process.stderr.write(
        `${paint('dim', `asking the server at ${found.url}; --no-server loads the model here`, process.stderr)}\n`,
      );
      return new RemoteAnswerer(found);
    }
  }
  return new LocalAnswerer(await loadModel(path, options, signal));
}

class LocalAnswerer implements Answerer {
  readonly name: string;
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.name = engine.info.model;
  }

  chat(...given: Parameters<Answerer['chat']>) {
    return this.#engine.chat(...given);
  }

  generate(...given: Parameters<Answerer['generate']>) {
    return this.#engine.generate(...given);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#engine.dispose();
  }
}
