/** Bodies of `POST /v1/messages` and its token counter: known fields by type, unknown fields pass unread. */
import { z } from '@hono/zod-openapi';

const textPart = z.looseObject({ type: z.string(), text: z.string().nullish() });

/** Of a document: `text` brings its characters, `content` its blocks; others (PDF, addresses) are no text. A search result names its address. */
const source = z.union([
  z.string(),
  z.looseObject({
    type: z.string(),
    data: z.string().nullish(),
    content: z.union([z.string(), z.array(textPart)]).nullish(),
  }),
]);

const blockFields = {
  type: z.string(),
  text: z.string().nullish(),
  title: z.string().nullish(),
  source: source.nullish(),
};

/** text, thinking, redacted_thinking, tool_use, tool_result, document, search_result, image … */
const block = z.looseObject({
  ...blockFields,
  thinking: z.string().nullish(),
  id: z.string().nullish(),
  name: z.string().nullish(),
  input: z.unknown().optional(),
  tool_use_id: z.string().nullish(),
  is_error: z.boolean().nullish(),
  content: z
    .union([z.string(), z.array(z.looseObject({ ...blockFields, content: z.array(textPart).nullish() }))])
    .nullish(),
});

const message = z.looseObject({
  role: z.enum(['user', 'assistant', 'system']),
  content: z.union([z.string(), z.array(block)]),
});

const tool = z.looseObject({
  name: z.string().min(1).max(256),
  type: z.string().nullish(),
  description: z.string().nullish(),
  input_schema: z.record(z.string(), z.unknown()).nullish(),
});

const shared = {
  model: z.string(),
  messages: z.array(message).min(1),
  system: z.union([z.string(), z.array(textPart)]).nullish(),
  tools: z.array(tool).max(4096).nullish(),
  tool_choice: z
    .looseObject({
      type: z.enum(['auto', 'any', 'tool', 'none']),
      name: z.string().nullish(),
      disable_parallel_tool_use: z.boolean().nullish(),
    })
    .nullish(),
  thinking: z
    .looseObject({
      type: z.enum(['enabled', 'disabled', 'adaptive']),
      budget_tokens: z.number().int().min(0).nullish(),
    })
    .nullish(),
};

export const messagesBody = z.looseObject({
  ...shared,
  max_tokens: z.number().int().min(1),
  stop_sequences: z.array(z.string()).max(64).nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().min(0).max(100).nullish(),
  top_k: z.number().int().min(0).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
});

export const countBody = z.looseObject(shared);

export type MessagesBody = z.output<typeof messagesBody>;
export type CountBody = z.output<typeof countBody>;
export type Block = z.output<typeof block>;
