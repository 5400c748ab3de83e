/** The body of `POST /v1/chat/completions`: known fields by type, unknown fields pass unread. */
import { z } from '@hono/zod-openapi';
import { functionTools } from '../function-tools.ts';

/** −1 is llama.cpp's and LM Studio's word for "until it ends". */
const tokens = z
  .number()
  .int()
  .min(-1)
  .refine((count) => count !== 0, 'an answer has at least one token')
  .nullish()
  .openapi({ description: 'most tokens of the answer; -1: what the context holds' });

const schema = z.union([z.record(z.string(), z.unknown()), z.boolean()]).nullish();

const number = (low: number, high: number) => z.number().min(low).max(high).nullish();
const part = z.looseObject({ type: z.string().optional(), text: z.string().nullish(), refusal: z.string().nullish() });
const toolCall = z.looseObject({
  id: z.string().nullish(),
  type: z.string().nullish(),
  function: z.looseObject({
    name: z.string(),
    arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
  }),
});

const message = z.looseObject({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: z.union([z.string(), z.array(part)]).nullish(),
  name: z.string().nullish(),
  reasoning_content: z.string().nullish(),
  reasoning: z.string().nullish(),
  tool_calls: z.array(toolCall).nullish(),
  tool_call_id: z.string().nullish(),
});

/** Sampling as all OpenAI-like routes take it, llama.cpp's and vLLM's additions included. */
export const samplingFields = {
  temperature: number(0, 100).openapi({ description: '0 takes the likeliest token' }),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.number().int().min(-1).nullish(),
  min_p: number(0, 1),
  presence_penalty: number(-100, 100),
  frequency_penalty: number(-100, 100),
  repeat_penalty: z.number().positive().max(100).nullish(),
  repetition_penalty: z.number().positive().max(100).nullish(),
  seed: z.number().int().nullish(),
  logit_bias: z.record(z.string(), z.number().min(-100).max(100)).nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(64)]).nullish(),
  n: z.number().int().min(1).nullish().openapi({ description: '1; more are refused' }),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  return_progress: z
    .boolean()
    .nullish()
    .openapi({ description: 'chunks with prompt_progress while the prompt is read' }),
  ignore_eos: z.boolean().nullish(),
  user: z.string().nullish(),
  priority: z.number().nullish().openapi({ description: 'below 0 goes behind what others wait for' }),
  response_format: z
    .looseObject({
      type: z.enum(['text', 'json_object', 'json_schema', 'regex', 'grammar']),
      json_schema: z.looseObject({ schema, strict: z.boolean().nullish() }).nullish(),
      schema,
      pattern: z.string().nullish(),
      grammar: z.string().nullish(),
    })
    .nullish()
    .openapi({ description: 'the form the answer keeps' }),
  json_schema: schema.openapi({ description: "llama.cpp's way to ask for a schema" }),
  grammar: z.string().nullish().openapi({ description: "llama.cpp's way to ask for a grammar with a rule root" }),
};

export const chatBody = z.looseObject({
  model: z.string().nullish(),
  messages: z.array(message).min(1),
  ...samplingFields,
  max_tokens: tokens,
  max_completion_tokens: tokens,
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(20).nullish(),
  tools: functionTools,
  tool_choice: z
    .union([
      z.enum(['auto', 'none', 'required']),
      z.looseObject({ type: z.string().nullish(), function: z.looseObject({ name: z.string() }).nullish() }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning_effort: z.string().nullish(),
  reasoning_format: z.enum(['none', 'auto', 'deepseek', 'deepseek-legacy', 'separate']).nullish(),
  thinking_budget: z.number().int().min(0).nullish().openapi({ description: 'most tokens of thinking' }),
  enable_thinking: z.boolean().nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish().openapi({ description: 'not read' }),
});

export type ChatBody = z.output<typeof chatBody>;
export type SamplingBody = z.output<z.ZodObject<typeof samplingFields>>;
