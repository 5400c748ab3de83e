/**
 * Tandem's public interface: `load` a model, `generate` or `chat`.
 *
 *     await using engine = await load();
 *     for await (const event of engine.chat([{ role: 'user', content: 'Hello!' }]))
 *       if (event.type === 'text') process.stdout.write(event.text);
 */

export type { Engine } from './engine/engine.ts';
export type { EngineInfo } from './engine/engine-parts.ts';
export type { ChatOptions, GenerateOptions } from './engine/generate-options.ts';
export type { Generation } from './engine/generation.ts';
export { defaultModelPath, type LoadOptions, load } from './engine/load.ts';
export type { Divergence, Perplexity, PerplexityOptions } from './engine/perplexity.ts';
export type { GenerationEvent, GenerationResult, Timings, TokenLogprob, Usage } from './engine/result.ts';
export type { SamplingOptions } from './engine/sampling.ts';
export type { SchedulerStats } from './engine/scheduler.ts';
export { ERROR_CODES, type ErrorCode, isAbort, TandemError } from './errors.ts';
export { type Kernel, type KernelContext, registerKernel } from './ops/kernel.ts';
export type { Rule } from './placement/rule.ts';
export type { PlaceDescription, RuleDescription } from './placement/rules-file.ts';
export type { ChatMessage, ChatRole, ToolCall, ToolDefinition } from './text/messages.ts';
