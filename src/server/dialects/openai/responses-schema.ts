/** The body of `POST /v1/responses`: known fields by type, unknown fields pass unread. */
import { z } from '@hono/zod-openapi';

const part = z.looseObject({ type: z.string().optional(), text: z.string().nullish(), refusal: z.string().nullish() });

/** message, function_call, function_call_output, reasoning, and what other tools of the hosted service leave behind. */
const item = z.looseObject({
  type: z.string().nullish(),
  role: z.enum(['system', 'developer', 'user', 'assistant']).nullish(),
  content: z.union([z.string(), z.array(part)]).nullish(),
  id: z.string().nullish(),
  call_id: z.string().nullish(),
  name: z.string().nullish(),
  arguments: z.string().nullish(),
  output: z.union([z.string(), z.array(part)]).nullish(),
  summary: z.array(part).nullish(),
});

export const responsesBody = z.looseObject({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(item)]).nullish(),
  instructions: z.string().nullish(),
  max_output_tokens: z.number().int().min(1).nullish(),
  temperature: z.number().min(0).max(100).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  stream: z.boolean().nullish(),
  tools: z
    .array(
      z.looseObject({
        type: z.string(),
        name: z.string().nullish(),
        description: z.string().nullish(),
        parameters: z.record(z.string(), z.unknown()).nullish(),
      }),
    )
    .max(4096)
    .nullish(),
  tool_choice: z
    .union([z.enum(['auto', 'none', 'required']), z.looseObject({ type: z.string(), name: z.string().nullish() })])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z
    .looseObject({
      format: z
        .looseObject({ type: z.string(), schema: z.union([z.record(z.string(), z.unknown()), z.boolean()]).nullish() })
        .nullish(),
    })
    .nullish(),
  reasoning: z.looseObject({ effort: z.string().nullish() }).nullish(),
  previous_response_id: z.string().nullish(),
  store: z.boolean().nullish(),
  include: z.array(z.string()).max(64).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
});

export type ResponsesBody = z.output<typeof responsesBody>;
export type ResponsesItem = z.output<typeof item>;
