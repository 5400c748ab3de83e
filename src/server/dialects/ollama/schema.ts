/** Bodies of Ollama's routes: known fields by type, unknown fields pass unread. */
import { z } from '@hono/zod-openapi';
import { functionTools } from '../function-tools.ts';

const options = z
  .looseObject({
    num_predict: z.number().int().nullish(),
    num_ctx: z.number().int().nullish(),
    temperature: z.number().min(0).max(100).nullish(),
    top_k: z.number().int().min(0).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    min_p: z.number().min(0).max(1).nullish(),
    seed: z.number().int().nullish(),
    stop: z.union([z.string(), z.array(z.string()).max(64)]).nullish(),
    repeat_penalty: z.number().positive().max(100).nullish(),
    presence_penalty: z.number().min(-100).max(100).nullish(),
    frequency_penalty: z.number().min(-100).max(100).nullish(),
  })
  .nullish();

const message = z.looseObject({
  role: z.enum(['system', 'user', 'assistant', 'tool']),
  content: z.string().nullish(),
  thinking: z.string().nullish(),
  images: z.array(z.string()).max(1024).nullish(),
  tool_name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  tool_calls: z
    .array(
      z.looseObject({
        id: z.string().nullish(),
        function: z.looseObject({
          name: z.string(),
          arguments: z.union([z.record(z.string(), z.unknown()), z.string()]).nullish(),
        }),
      }),
    )
    .nullish(),
});

const shared = {
  model: z.string(),
  stream: z.boolean().nullish(),
  options,
  format: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
  think: z.union([z.boolean(), z.string()]).nullish(),
  keep_alive: z.union([z.string(), z.number()]).nullish(),
};

export const chatBody = z.looseObject({
  ...shared,
  messages: z.array(message).nullish(),
  tools: functionTools,
});

export const generateBody = z.looseObject({
  ...shared,
  prompt: z.string().nullish(),
  suffix: z.string().nullish(),
  system: z.string().nullish(),
  raw: z.boolean().nullish(),
  images: z.array(z.string()).max(1024).nullish(),
});

export const showBody = z.looseObject({ model: z.string().nullish(), name: z.string().nullish() });

export const pullBody = z.looseObject({
  model: z.string().nullish(),
  name: z.string().nullish(),
  stream: z.boolean().nullish(),
});

export type ChatBody = z.output<typeof chatBody>;
export type GenerateBody = z.output<typeof generateBody>;
