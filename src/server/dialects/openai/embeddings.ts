/** `POST /v1/embeddings`: the models of this server generate text; the answer says so instead of "no such route". */
import { TandemError } from '../../../errors.ts';
import type { Dialect } from '../../context.ts';
import { openaiError } from './failure.ts';

export const openaiEmbeddings: Dialect = {
  name: 'openai-embeddings',
  owns: (path) => /^\/(v1\/)?embeddings$/.test(path),
  errorBody: openaiError,
  mount(app) {
    for (const path of ['/v1/embeddings', '/embeddings'])
      app.post(path, () => {
        throw new TandemError('FORMAT_UNSUPPORTED', {
          room: 'server',
          rule: 'embeddings come from a model that was made for them',
          given: 'the models of this server generate text',
          fix: 'ask a server with an embedding model',
        });
      });
  },
};
