/** Servers for tests: one with the model that ships, and ones whose model writes what the test says. */

import { nativeProblem } from '../../src/backend/native/load.ts';
import type { Engine } from '../../src/engine/engine.ts';
import { defaultModelPath, type LoadOptions, load } from '../../src/engine/load.ts';
import type { ModelCard } from '../../src/engine/model-card.ts';
import { readModelCard } from '../../src/engine/model-card.ts';
import type { Batch, PassResult } from '../../src/program/batch.ts';
import { buildApp } from '../../src/server/app.ts';
import { DEFAULT_SERVER_OPTIONS, type ServerApp, type ServerOptions } from '../../src/server/context.ts';
import { mountFrontPage } from '../../src/server/front-page.ts';
import { type ListeningServer, listen } from '../../src/server/listen.ts';
import { createLogger } from '../../src/server/log.ts';
import { ModelHost } from '../../src/server/models.ts';
import { mountReference } from '../../src/server/reference-page.ts';
import { DIALECTS } from '../../src/server/start.ts';
import { FakeExecutable } from '../engine/fake-executable.ts';
import { END } from '../engine/fake-tokenizer.ts';
import { engineOn } from '../engine/house.ts';

export interface TestServer extends ListeningServer {
  readonly models: ModelHost;
  readonly logs: string[];
  readonly app: ServerApp;
}

export async function serve(
  card: ModelCard,
  make: () => Promise<Engine>,
  options: Partial<ServerOptions> = {},
  idleMs = 0,
): Promise<TestServer> {
  const logs: string[] = [];
  const models = new ModelHost([{ card, aliases: ['alias/of:it'], load: make }], { idleMs });
  const whole = { ...DEFAULT_SERVER_OPTIONS, port: 0, drainMs: 2000, ...options };
  const logger = createLogger('info', { write: (line) => logs.push(line) });
  const handle = buildApp({ models, dialects: DIALECTS, options: whole, logger, version: '0.0.0' });
  mountFrontPage(handle.app);
  mountReference(handle.app, '0.0.0');
  const listening = await listen(handle, whole);
  return {
    ...listening,
    models,
    logs,
    app: handle.app,
    async close() {
      await listening.close();
      await models.dispose();
    },
  };
}

/** The model that ships, native where it is built. */
export async function serveJug(options: Partial<ServerOptions> = {}, loading: LoadOptions = {}): Promise<TestServer> {
  const path = defaultModelPath();
  const backend = nativeProblem() === undefined ? ('native' as const) : ('reference' as const);
  return serve(await readModelCard(path), () => load(path, { backend, contextLength: 1024, ...loading }), options);
}

export const CARD: ModelCard = {
  id: 'org/scripted:1',
  created: 1_700_000_000,
  size: 1,
  parameters: 1,
  architecture: 'fake',
  quantization: 'f32',
  format: 'gguf',
  contextLength: 2048,
  layers: 1,
  hiddenSize: 1,
  digest: 'd'.repeat(64),
};

/** Writes what `answer` says, whatever it is asked, byte by byte; slow where `pause` waits before a pass. */
export class TalkingExecutable extends FakeExecutable {
  readonly #script: readonly number[];
  readonly #first = new Map<string, number>();

  constructor(answer: string, pause?: (batch: Batch) => Promise<void>, contextLength = 2048) {
    super({ pages: 256 + contextLength / 64, vocabSize: 258, contextLength, during: pause });
    this.#script = [...new TextEncoder().encode(answer), END];
  }

  override compute(batch: Batch): PassResult {
    const result = super.compute(batch);
    batch.outputs.forEach(({ sampling }, o) => {
      if (!sampling) return;
      const key = `${sampling.seedLow} ${sampling.seedHigh}`;
      const first = this.#first.get(key) ?? sampling.position;
      this.#first.set(key, first);
      result.tokens[o] = this.#script[sampling.position - first] ?? END;
    });
    return result;
  }
}

export async function serveAnswer(
  answer: string,
  options: Partial<ServerOptions> = {},
  pause?: (batch: Batch) => Promise<void>,
  contextLength?: number,
): Promise<TestServer & { readonly executable: TalkingExecutable }> {
  const executable = new TalkingExecutable(answer, pause, contextLength);
  const server = await serve(CARD, async () => engineOn(executable, { maxSequences: 16 }), options);
  await server.models.warm('');
  return { ...server, executable };
}
