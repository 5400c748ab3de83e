/** Ollama's API: Open WebUI's other connector and many editors. Streaming is the default here. */
import { z } from '@hono/zod-openapi';
import type { Engine } from '../../../engine/engine.ts';
import { TandemError } from '../../../errors.ts';
import { BACKGROUND_PRIORITY, isBackgroundTask } from '../../background.ts';
import type { Dialect, ServerRequest, StartGeneration } from '../../context.ts';
import type { ModelEntry } from '../../models.ts';
import { get, post } from '../../routes.ts';
import { toolOptions } from '../../tools.ts';
import { toolDefinitions } from '../function-tools.ts';
import { CHAT, GENERATE, ollamaStream, type Shape, whole, writeLines } from './answers.ts';
import { chatOptions, keepAliveMs, messagesOf, refuseImages } from './request.ts';
import { type ChatBody, chatBody, type GenerateBody, generateBody, pullBody, showBody } from './schema.ts';

/** The API this is compatible with; clients compare it. */
const API_VERSION = '0.20.0';
const TAG = 'Ollama';

/** Routes that Ollama has and this server refuses in its form. */
const REFUSED: readonly (readonly [path: string, what: string, method?: 'delete'])[] = [
  ['/api/push', 'upload models'],
  ['/api/create', 'make models'],
  ['/api/copy', 'copy models'],
  ['/api/delete', 'delete models', 'delete'],
  ['/api/embed', 'compute embeddings: its models generate text'],
  ['/api/embeddings', 'compute embeddings: its models generate text'],
];

function unsupported(what: string): TandemError {
  return new TandemError('FORMAT_UNSUPPORTED', {
    room: 'server',
    rule: `this server does not ${what}`,
    given: 'its models are chosen when it is started',
    fix: 'use the tandem command on the machine itself',
  });
}

export const ollama: Dialect = {
  name: 'ollama',
  owns: (path) => path.startsWith('/api/'),
  errorBody: (error) => ({ error: error.message }),
  mount(app, server) {
    get(app, ollama, {
      paths: ['/api/version'],
      tag: TAG,
      summary: 'Version of the API',
      handle: () => Response.json({ version: API_VERSION }),
    });
    get(app, ollama, {
      paths: ['/api/tags'],
      tag: TAG,
      summary: 'Models of this server',
      handle: () => Response.json({ models: server.models.list().map(tag) }),
    });
    get(app, ollama, {
      paths: ['/api/ps'],
      tag: TAG,
      summary: 'Models that are loaded',
      handle: () => {
        const loaded = server.models.list().filter(({ state }) => state === 'ready');
        const models = loaded.map((model) => ({
          ...tag(model),
          // Without idle unloading: far away, as Ollama writes "for ever".
          expires_at: new Date(model.expiresAt ?? Date.now() + 100 * 365 * 86_400_000).toISOString(),
          size_vram: 0,
          context_length: model.contextLength,
        }));
        return Response.json({ models });
      },
    });
    post(app, server, ollama, {
      paths: ['/api/show'],
      tag: TAG,
      summary: 'One model',
      body: showBody,
      handle: (_, { model, name }) => {
        const wanted = model ?? name ?? '';
        const entry = server.models.find(wanted);
        if (entry === undefined) throw server.models.unknown(wanted);
        return Response.json(show(entry, server.models.peek(wanted)));
      },
    });
    post(app, server, ollama, {
      paths: ['/api/chat'],
      tag: TAG,
      summary: 'Answer a conversation',
      body: chatBody,
      handle(request, body) {
        const messages = messagesOf(body);
        if (messages.length === 0) return loadOrUnload(request, body, CHAT);
        const options = { ...chatOptions(body), ...toolOptions(toolDefinitions(body.tools), undefined) };
        if (isBackgroundTask(messages)) options.priority = BACKGROUND_PRIORITY;
        return answer(request, body, CHAT, (engine, signal) => engine.chat(messages, { ...options, signal }));
      },
    });
    post(app, server, ollama, {
      paths: ['/api/generate'],
      tag: TAG,
      summary: 'Answer a prompt',
      body: generateBody,
      handle(request, body) {
        refuseImages(body.images);
        const { prompt, system, raw, suffix } = body;
        if (!prompt) return loadOrUnload(request, body, GENERATE);
        if (suffix)
          throw new TandemError('REQUEST_INVALID', {
            room: 'server',
            rule: 'text is continued at its end',
            given: 'a suffix asks to fill a gap',
            fix: 'leave suffix out',
          });
        const options = chatOptions(body);
        if (raw) {
          const { thinking: _, templateVariables: __, ...rest } = options;
          return answer(request, body, GENERATE, (engine, signal) =>
            engine.generate(prompt, { ...rest, parseSpecial: true, signal }),
          );
        }
        const head = system ? [{ role: 'system' as const, content: system }] : [];
        const messages = [...head, { role: 'user' as const, content: prompt }];
        return answer(request, body, GENERATE, (engine, signal) => engine.chat(messages, { ...options, signal }));
      },
    });
    post(app, server, ollama, {
      paths: ['/api/pull'],
      tag: TAG,
      summary: 'Succeeds where the model is here; nothing is downloaded',
      body: pullBody,
      handle(_, { model, name, stream }) {
        const wanted = model ?? name ?? '';
        if (server.models.find(wanted) === undefined) throw unsupported('download models for clients');
        const success = { status: 'success' };
        return stream === false
          ? Response.json(success)
          : new Response(`${JSON.stringify(success)}\n`, { headers: { 'content-type': 'application/x-ndjson' } });
      },
    });
    for (const [path, what, method] of REFUSED)
      post(app, server, ollama, {
        paths: [path],
        method,
        tag: TAG,
        summary: `Refused: this server does not ${what}`,
        body: z.looseObject({}),
        handle: () => {
          throw unsupported(what);
        },
      });

    function answer(
      request: ServerRequest,
      body: ChatBody | GenerateBody,
      shape: Shape,
      start: StartGeneration,
    ): Promise<Response> {
      const { model, options } = body;
      const keep = keepAliveMs(body.keep_alive);
      if (options?.num_ctx)
        request.get('facts').note =
          `num_ctx ${options.num_ctx} is not followed: the context is set when a model is loaded`;
      return server.answer(request, ollama, {
        model,
        start: (engine, signal) => {
          const generation = start(engine, signal);
          if (keep !== undefined) server.models.keep(model, keep);
          return generation;
        },
        streamed: body.stream !== false,
        format: ollamaStream(model, shape),
        whole: ({ loadMs }, result) => whole(model, shape, result, loadMs),
        write: (out, { generation, loadMs }) => writeLines(out, generation, { model, shape, loadMs }),
      });
    }

    /** A request without a prompt loads the model for `keep_alive`, or with 0 unloads it. */
    async function loadOrUnload(
      request: ServerRequest,
      { model, keep_alive: keepAlive }: ChatBody | GenerateBody,
      shape: Shape,
    ): Promise<Response> {
      if (server.models.find(model) === undefined) throw server.models.unknown(model);
      const keep = keepAliveMs(keepAlive);
      const unload = keep === 0;
      if (unload) await server.models.unload(model);
      else (await server.models.acquire(model, { signal: request.get('signal'), wait: true })).release();
      if (keep !== undefined && !unload) server.models.keep(model, keep);
      return Response.json({
        model,
        created_at: new Date().toISOString(),
        ...shape.delta({}),
        done: true,
        done_reason: unload ? 'unload' : 'load',
      });
    }
  },
};

function details({ format, architecture, quantization, parameters }: ModelEntry) {
  return {
    parent_model: '',
    format: format === 'gguf' ? 'gguf' : 'safetensors',
    family: architecture,
    families: [architecture],
    parameter_size: parameters >= 1e9 ? `${(parameters / 1e9).toFixed(1)}B` : `${(parameters / 1e6).toFixed(1)}M`,
    quantization_level: quantization.toUpperCase(),
  };
}

function tag(model: ModelEntry) {
  const name = `${model.id}:latest`;
  return {
    name,
    model: name,
    modified_at: new Date(model.created * 1000).toISOString(),
    size: model.size,
    digest: model.digest,
    details: details(model),
  };
}

function show(model: ModelEntry, engine: Engine | undefined) {
  const { architecture } = model;
  const template = engine?.chatTemplate ?? '';
  const capabilities = ['completion'];
  if (template.includes('tools') || template.includes('tool_call')) capabilities.push('tools');
  if (template.includes('think')) capabilities.push('thinking');
  return {
    license: '',
    modelfile: `FROM ${model.id}\n`,
    parameters: '',
    template,
    details: details(model),
    model_info: {
      'general.architecture': architecture,
      'general.basename': model.id,
      'general.parameter_count': model.parameters,
      [`${architecture}.context_length`]: model.contextLength,
      [`${architecture}.embedding_length`]: model.hiddenSize,
      [`${architecture}.block_count`]: model.layers,
    },
    capabilities,
    modified_at: new Date(model.created * 1000).toISOString(),
  };
}
