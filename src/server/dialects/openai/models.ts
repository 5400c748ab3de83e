/** `GET /v1/models`: answers at once whatever else happens; clients ask it to see whether anybody is there. */
import type { Dialect } from '../../context.ts';
import type { ModelEntry } from '../../models.ts';
import { get } from '../../routes.ts';
import { openaiError } from './failure.ts';

export const openaiModels: Dialect = {
  name: 'openai-models',
  owns: (path) => path.startsWith('/v1/models'),
  errorBody: openaiError,
  mount(app, server) {
    const tag = 'OpenAI';
    get(app, openaiModels, {
      paths: ['/v1/models', '/models'],
      tag,
      summary: 'Models of this server, loaded or not',
      handle: () => {
        const data = server.models
          .list()
          .flatMap((model) => [model.id, ...model.aliases].map((id) => describe(model, id)));
        // Codex reads `models`; Anthropic's client reads pages.
        const page = { has_more: false, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null };
        return Response.json({ object: 'list', data, models: data, ...page });
      },
    });
    get(app, openaiModels, {
      paths: ['/v1/models/{model}', '/models/{model}'],
      tag,
      summary: 'One model',
      handle: (request) => one(request.req.param('model') ?? ''),
    });
    // Names with slashes come unencoded too.
    for (const path of ['/v1/models/*', '/models/*'])
      app.get(path, (request) => one(decoded(request.req.path.replace(/^(\/v1)?\/models\//, ''))));

    function one(name: string): Response {
      const model = server.models.find(name);
      if (model === undefined || name === '') throw server.models.unknown(name);
      return Response.json(describe(model, name));
    }
  },
};

/** A name as it was before a client encoded it; what is not encoded well is a name as it stands. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function describe(model: ModelEntry, id: string) {
  return {
    id,
    object: 'model',
    created: model.created,
    owned_by: 'tandem',
    // Anthropic's words for the same.
    type: 'model',
    display_name: id,
    created_at: new Date(model.created * 1000).toISOString(),
    status: { value: model.state === 'ready' ? 'loaded' : model.state === 'failed' ? 'unloaded' : model.state },
    meta: {
      architecture: model.architecture,
      quantization: model.quantization,
      n_ctx_train: model.contextLength,
      n_params: model.parameters,
      size: model.size,
      progress: model.progress,
      ...(model.error === undefined ? {} : { error: 'loading failed; see the log of the server' }),
    },
  };
}
