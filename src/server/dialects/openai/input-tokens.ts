/** `POST …/input_tokens`: how many tokens a conversation would take, without answering it. */
import type { z } from '@hono/zod-openapi';
import type { ChatOptions } from '../../../engine/generate-options.ts';
import type { ChatMessage } from '../../../text/messages.ts';
import type { Dialect, ServerApp, ServerContext } from '../../context.ts';
import { defined } from '../../defined.ts';
import { post } from '../../routes.ts';

interface Conversation {
  readonly messages: readonly ChatMessage[];
  readonly options: ChatOptions;
}

/** The counter of a route: it takes the same body. */
export function inputTokens<T extends z.ZodType<{ model?: string | null }>>(
  app: ServerApp,
  server: ServerContext,
  dialect: Dialect,
  { path, body, read }: { path: string; body: T; read: (body: z.output<T>) => Conversation },
): void {
  post(app, server, dialect, {
    paths: [`/v1${path}/input_tokens`, `${path}/input_tokens`],
    tag: 'OpenAI',
    summary: 'Tokens a conversation would take',
    body,
    async handle(request, given) {
      const { messages, options } = read(given);
      const { tools, thinking, thinkingBudget, templateVariables } = options;
      const shape = defined({ tools, thinking, thinkingBudget, templateVariables });
      const ids = await server.borrow(request, given.model ?? '', (engine, signal) =>
        engine.promptTokens(messages, shape, signal),
      );
      return Response.json({ object: 'response.input_tokens', input_tokens: ids.length });
    },
  });
}
