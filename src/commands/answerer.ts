/** Where an answer comes from: the server that was named, one that runs here with the same model, or this process. */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { readModelCard } from '../engine/model-card.ts';
import type { Engine } from '../index.ts';
import { DEFAULT_SERVER_OPTIONS } from '../server/context.ts';
import { type FamiliarFlags, familiarOptions, familiarRules } from './familiar.ts';
import { loadModel } from './load-model.ts';
import { localPath } from './model-name.ts';
import { loadOptions, type ModelFlags } from './options.ts';
import { type Answerer, connect, findServer, RemoteAnswerer } from './remote.ts';
import { paint } from './terminal.ts';

export interface ServerFlags {
  /** An address, or false for "load it here". */
  server?: string | false;
  apiKey?: string;
}

/** Adds the key of a server. */
export function withKey(command: Command): Command {
  return command.option('--api-key <key>', 'key of that server (or TANDEM_API_KEY)');
}

/** `argument`: the model where a command takes it as such; else `--model` names it. */
export async function openAnswerer(
  flags: ModelFlags & ServerFlags & FamiliarFlags,
  argument: string | undefined,
  signal: AbortSignal,
): Promise<Answerer> {
  const key = flags.apiKey ?? process.env.TANDEM_API_KEY;
  if (typeof flags.server === 'string') {
    const model = argument ?? flags.model;
    return new RemoteAnswerer(await connect(flags.server, { key, model, digest: () => digestOf(model) }));
  }
  const path = await localPath(flags, argument);
  const options = { ...loadOptions(flags), ...familiarOptions(flags), rules: await familiarRules(flags, path) };
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
    if (found === 'locked') say('a server runs here and wants its key (--api-key); loading the model in this process');
    else if (found !== undefined) {
      say(`asking the server at ${found.url}; --no-server loads the model here`);
      return new RemoteAnswerer(found);
    }
  }
  return new LocalAnswerer(await loadModel(path, options, signal));
}

/** What a server calls a local file by; undefined where it is none. */
async function digestOf(model: string | undefined): Promise<string | undefined> {
  return model !== undefined && existsSync(model) ? (await readModelCard(model)).digest : undefined;
}

function say(text: string): void {
  process.stderr.write(`${paint('dim', text, process.stderr)}\n`);
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
