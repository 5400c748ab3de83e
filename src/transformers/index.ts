/**
 * `tandem/transformers`: text generation by the names of @huggingface/transformers, so that code written for it moves by
 * changing one import.
 *
 *     import { pipeline, TextStreamer } from 'tandem/transformers';
 *     const generator = await pipeline('text-generation', 'Qwen/Qwen3-0.6B');
 *     const [{ generated_text }] = await generator('Once upon a time', { max_new_tokens: 20 });
 */
export type { BatchOptions, Encoding } from './batch-encoding.ts';
export { AutoModelForCausalLM, type CausalLM, type GenerateInputs } from './causal-lm.ts';
export type { Message, ToolSpec } from './messages.ts';
export { type Environment, env, type HubOptions, type ProgressInfo } from './model-files.ts';
export type { GenerationOptions } from './options.ts';
export {
  type ChatOutput,
  type PipelineOptions,
  pipeline,
  type TextGenerationOptions,
  type TextGenerationPipeline,
  type TextOutput,
} from './pipeline.ts';
export { InterruptableStoppingCriteria, StoppingCriteria, StoppingCriteriaList } from './stopping.ts';
export { BaseStreamer, type Streamer, TextStreamer, type TextStreamerOptions } from './streamers.ts';
export { Tensor } from './tensor.ts';
export {
  AutoTokenizer,
  type CallOptions,
  type DecodeOptions,
  type EncodeOptions,
  type PreTrainedTokenizer,
  type TemplateOptions,
} from './tokenizer.ts';
