/** Puts a server together: models, dialects, application, socket. */
import { type LoadOptions, load } from '../engine/load.ts';
import { modelName, readModelCard } from '../engine/model-card.ts';
import { PageFolder } from '../engine/page-folder.ts';
import { type AppParts, buildApp } from './app.ts';
import { DEFAULT_SERVER_OPTIONS, type Dialect, type ServerOptions } from './context.ts';
import { anthropic } from './dialects/anthropic/messages.ts';
import { experts } from './dialects/experts.ts';
import { llamacpp } from './dialects/llamacpp.ts';
import { ollama } from './dialects/ollama/ollama.ts';
import { openaiChat } from './dialects/openai/chat.ts';
import { openaiCompletions } from './dialects/openai/completions.ts';
import { openaiEmbeddings } from './dialects/openai/embeddings.ts';
import { openaiModels } from './dialects/openai/models.ts';
import { openaiResponses } from './dialects/openai/responses.ts';
import { mountFrontPage } from './front-page.ts';
import { type ListeningServer, listen } from './listen.ts';
import { createLogger, type ServerLogger } from './log.ts';
import { ModelHost, type ModelSource } from './models.ts';
import { mountReference } from './reference-page.ts';

export const DIALECTS: readonly Dialect[] = [
  llamacpp,
  experts,
  ollama,
  anthropic,
  openaiModels,
  openaiCompletions,
  openaiResponses,
  openaiEmbeddings,
  openaiChat,
];

export interface ServedModel {
  readonly path: string;
  /** Public name; default: the file's or folder's. */
  readonly name?: string;
  readonly aliases?: readonly string[];
  readonly load?: LoadOptions;
}

export interface StartOptions extends Partial<ServerOptions> {
  /** The first one is loaded at start, the others when they are asked for. */
  readonly models: readonly ServedModel[];
  readonly version: string;
  /** Milliseconds without a request after which a model is unloaded; 0 (default): never. */
  readonly idleMs?: number;
  /** Most models in memory at once; default: as many as fit. */
  readonly maxLoaded?: number;
  /** Bytes that all models together may take; default: the machine's. */
  readonly memory?: number;
  /** Loads when first asked, not at start. Default false. */
  readonly lazy?: boolean;
  readonly logLevel?: string;
  readonly logger?: ServerLogger;
  /** Bytes of weights that are ready, of all, of the model that is being loaded. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface RunningServer extends ListeningServer {
  readonly models: ModelHost;
  /** Once the first model is loaded; rejects where it cannot be. */
  readonly ready: Promise<void>;
}

/** Listens at once and loads meanwhile: balancers and front ends get an answer from the first moment. */
export async function startServer(start: StartOptions): Promise<RunningServer> {
  const { models: served, version, idleMs = 0, lazy = false, logLevel = 'info', onProgress, ...rest } = start;
  const { maxLoaded, memory, ...given } = rest;
  const options: ServerOptions = { ...DEFAULT_SERVER_OPTIONS, ...given };
  const logger = start.logger ?? createLogger(logLevel);
  const end = new AbortController();
  const ambiguous = (path: string) => served.filter((other) => modelName(other.path) === modelName(path)).length > 1;
  const sources = await Promise.all(
    served.map((model) => {
      const fileName = model.name !== undefined && !ambiguous(model.path);
      return sourceOf(model, fileName, end.signal, onProgress);
    }),
  );
  const models = new ModelHost(sources, {
    idleMs,
    maxLoaded,
    memory,
    told: (event) =>
      logger[event.event === 'failed' ? 'error' : event.warnings ? 'warn' : 'info'](event, `model ${event.event}`),
  });
  const parts: AppParts = { models, dialects: DIALECTS, options, logger, version };
  const handle = buildApp(parts);
  mountFrontPage(handle.app);
  mountReference(handle.app, version);
  const listening = await listen(handle, options);
  const ready = lazy ? Promise.resolve() : models.warm('');
  ready.catch(() => {}); // told by `entry`, the log and every request
  return {
    ...listening,
    models,
    ready,
    async close() {
      const deadline = performance.now() + options.drainMs;
      await listening.close();
      end.abort(); // nobody waits for a model that loads
      await models.dispose(Math.max(0, deadline - performance.now()));
    },
  };
}

async function sourceOf(
  { path, name, aliases = [], load: options }: ServedModel,
  fileName: boolean,
  signal: AbortSignal,
  onProgress: StartOptions['onProgress'],
): Promise<ModelSource> {
  const card = await readModelCard(path);
  // Now, not when somebody asks for the model.
  if (typeof options?.prefixCache === 'object')
    await PageFolder.open({ directory: options.prefixCache.directory, maxBytes: Number.POSITIVE_INFINITY });
  return {
    card: name === undefined ? card : { ...card, id: name },
    // A model with a name of its own answers to that of its file too, unless another one does.
    aliases: [...new Set([...aliases, ...(fileName ? [card.id] : [])])].filter((alias) => alias !== name),
    load: (progress, memory) =>
      load(path, {
        ...options,
        memory: memory ?? options?.memory,
        signal,
        onProgress: (done, total) => {
          progress(done, total);
          onProgress?.(done, total);
        },
      }),
  };
}
