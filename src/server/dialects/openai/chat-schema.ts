/** The body of `POST /v1/chat/completions`: known fields by type, unknown fields pass unread. */
import { z } from '@hono/zod-openapi';

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

/** Tools that are no functions (web search of hosted services) are skipped, not refused. */
const tool = z.looseObject({
  type: z.string().nullish(),
  function: z
    .looseObject({
      name: z.string().min(1).max(256),
      description: z.string().nullish(),
      parameters: z.record(z.string(), z.unknown()).nullish(),
    })
    .nullish(),
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
  n: z.number().int().min(1).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  return_progress: z
    .boolean()
    .nullish()
    .openapi({ description: 'chunks with prompt_progress while the prompt is read' }),
  ignore_eos: z.boolean().nullish(),
  user: z.string().nullish(),
  /** Below 0 goes behind what others wait for. */
  priority: z.number().nullish(),
};

export const chatBody = z.looseObject({
  model: z.string().nullish(),
  messages: z.array(message).min(1),
  ...samplingFields,
  max_tokens: z.number().int().min(1).nullish(),
  max_completion_tokens: z.number().int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.number().int().min(0).max(20).nullish(),
  response_format: z
    .looseObject({
      type: z.enum(['text', 'json_object', 'json_schema', 'regex', 'grammar']),
      json_schema: z
        .looseObject({ schema: z.union([z.record(z.string(), z.unknown()), z.boolean()]).nullish() })
        .nullish(),
      schema: z.union([z.record(z.string(), z.unknown()), z.boolean()]).nullish(),
      pattern: z.string().nullish(),
      grammar: z.string().nullish(),
    })
    .nullish(),
  tools: z.array(tool).max(4096).nullish(),
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
});

export type ChatBody = z.output<typeof chatBody>;
export type SamplingBody = z.output<z.ZodObject<typeof samplingFields>>;
