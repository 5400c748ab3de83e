/** The body of `POST /v1/completions`: known fields by type, unknown fields pass unread. */
import { z } from '@hono/zod-openapi';
import { tokenIds } from '../token-ids.ts';
import { samplingFields } from './chat-schema.ts';

export const completionBody = z.looseObject({
  model: z.string().nullish(),
  prompt: z.union([z.string(), tokenIds, z.array(z.string()).min(1).max(64), z.array(tokenIds).min(1).max(64)]),
  ...samplingFields,
  max_tokens: z
    .number()
    .int()
    .min(-1)
    .nullish()
    .openapi({ description: '16 where absent; 0 draws nothing; -1: what the context holds' }),
  echo: z.boolean().nullish().openapi({ description: 'the prompt first, with its log-probabilities where asked' }),
  suffix: z.string().nullish().openapi({ description: 'refused: text is continued at its end' }),
  logprobs: z.number().int().min(0).max(20).nullish(),
  best_of: z.literal(1, 'Invalid input: a request asks for one answer').nullish(),
});

export type CompletionBody = z.output<typeof completionBody>;
