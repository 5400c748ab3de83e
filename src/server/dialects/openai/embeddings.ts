/** `POST /v1/embeddings`: the models of this server generate text; the answer says so instead of "no such route". */
import { z } from '@hono/zod-openapi';
import { TandemError } from '../../../errors.ts';
import type { Dialect } from '../../context.ts';
import { post } from '../../routes.ts';
import { openaiError } from './failure.ts';

export const openaiEmbeddings: Dialect = {
  name: 'openai-embeddings',
  owns: (path) => /^\/(v1\/)?embeddings$/.test(path),
  errorBody: openaiError,
  mount(app, server) {
    post(app, server, openaiEmbeddings, {
      paths: ['/v1/embeddings', '/embeddings'],
      tag: 'OpenAI',
      summary: 'Refused: the models of this server generate text',
      body: z.looseObject({}),
      handle: () => {
        throw new TandemError('FORMAT_UNSUPPORTED', {
          room: 'server',
          rule: 'embeddings come from a model that was made for them',
          given: 'the models of this server generate text',
          fix: 'ask a server with an embedding model',
        });
      },
    });
  },
};
