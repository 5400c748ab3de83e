/** llama.cpp's routes around the answers: health, props, slots, tokens, metrics. Dashboards and balancers know them. */
import { z } from '@hono/zod-openapi';
import { TandemError } from '../../errors.ts';
import type { Dialect } from '../context.ts';
import { get, post } from '../routes.ts';
import { openaiError } from './openai/failure.ts';
import { tokenIds } from './token-ids.ts';

const TAG = 'Operation';

const tokenizeBody = z.looseObject({
  content: z.string().optional(),
  text: z.string().optional(),
  prompt: z.string().optional(),
  model: z.string().nullish(),
  add_special: z.boolean().optional(),
  parse_special: z.boolean().optional(),
  with_pieces: z.boolean().optional(),
});

const detokenizeBody = z.looseObject({ tokens: tokenIds, model: z.string().nullish() });

export const llamacpp: Dialect = {
  name: 'llamacpp',
  owns: (path) => /^\/(v1\/)?(health|livez|readyz|metrics|props|slots|tokenize|detokenize)$/.test(path),
  errorBody: openaiError,
  mount(app, server) {
    const ready = () => {
      if (server.stopping())
        throw new TandemError('SERVER_STOPPING', { room: 'server', rule: 'the server is shutting down' });
      const { state, model } = server.models.readiness;
      if (state === 'loading')
        throw new TandemError('MODEL_LOADING', {
          room: 'server',
          rule: 'the server is ready once its model is loaded',
          given: `${model.id} is ${Math.floor(model.progress * 100)} % there`,
        });
      if (state === 'failed')
        throw new TandemError('NATIVE_FAILED', {
          room: 'server',
          rule: 'the server is ready once its model is loaded',
          given: `loading ${model.id} failed`,
          fix: 'see the log of the server',
        });
      return Response.json({ status: 'ok' });
    };
    get(app, llamacpp, {
      paths: ['/health', '/v1/health', '/readyz'],
      tag: TAG,
      summary: 'Ready to answer?',
      handle: ready,
    });
    get(app, llamacpp, {
      paths: ['/livez'],
      tag: TAG,
      summary: 'Alive?',
      handle: () => Response.json({ status: 'ok' }),
    });
    get(app, llamacpp, {
      paths: ['/metrics'],
      tag: TAG,
      summary: 'Prometheus metrics',
      handle: async () =>
        new Response(await server.metrics.registry.metrics(), {
          headers: { 'content-type': server.metrics.registry.contentType },
        }),
    });
    get(app, llamacpp, {
      paths: ['/props'],
      tag: TAG,
      summary: 'What the server runs',
      handle: () => {
        const [model] = server.models.list();
        const engine = server.models.peek(model.id);
        return Response.json({
          build_info: `tandem ${server.version}`,
          model_alias: model.id,
          total_slots: engine?.maxSequences ?? 0,
          default_generation_settings: { n_ctx: model.contextLength },
          chat_template: engine?.chatTemplate ?? '',
          modalities: { vision: false, audio: false },
          is_sleeping: engine === undefined,
        });
      },
    });
    get(app, llamacpp, {
      paths: ['/slots'],
      tag: TAG,
      summary: 'Requests that run',
      handle: () => {
        const engine = server.models.peek('');
        return Response.json(
          (engine?.requests() ?? []).map(({ id, promptTokens, computed, generated, state }) => ({
            id,
            is_processing: state === 'running',
            n_prompt_tokens: promptTokens,
            n_prompt_tokens_processed: Math.min(computed, promptTokens),
            n_decoded: generated,
          })),
        );
      },
    });
    post(app, server, llamacpp, {
      paths: ['/tokenize', '/v1/tokenize'],
      tag: TAG,
      summary: 'Token ids of a text',
      body: tokenizeBody,
      handle: async (request, body) => {
        const answer = await server.borrow(request, body.model ?? '', async (engine, signal) => {
          const text = body.content ?? body.text ?? body.prompt ?? '';
          const reading = { addSpecial: body.add_special ?? false, parseSpecial: body.parse_special ?? true };
          const tokens = await engine.tokenizeApart(text, reading, signal);
          const shown = Array.from(tokens, (id) => (body.with_pieces ? { id, piece: engine.detokenize([id]) } : id));
          return { tokens: shown, count: tokens.length, max_model_len: engine.info.contextLength };
        });
        return Response.json(answer);
      },
    });
    post(app, server, llamacpp, {
      paths: ['/detokenize', '/v1/detokenize'],
      tag: TAG,
      summary: 'Text of token ids',
      body: detokenizeBody,
      handle: async (request, { tokens, model }) => {
        const content = await server.borrow(request, model ?? '', (engine) => engine.detokenize(tokens));
        return Response.json({ content, prompt: content });
      },
    });
  },
};
