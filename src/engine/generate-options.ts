/** What a caller of `generate` and `chat` may say, and the names that are known. */
import type { ToolDefinition } from '../text/messages.ts';
import type { OutputFormat } from './grammar.ts';
import type { Progress } from './request.ts';
import type { SamplingOptions } from './sampling.ts';

/** Options of `generate`. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to draw, ≥ 1; what the context does not hold is cut off. Default: what the context holds. */
  maxTokens?: number;
  /** Text that ends the generation; it is not part of the result. */
  stop?: string | readonly string[];
  /** Token ids that end the generation beside the model's own. */
  stopTokens?: readonly number[];
  /** Go on when the model ends its text. For measurements. */
  ignoreEos?: boolean;
  /** String prompts only: put the model's begin token before the prompt where the model wants one. Default true. */
  addSpecial?: boolean;
  /** String prompts only: read control tokens written in the prompt as such. Default false. */
  parseSpecial?: boolean;
  /** The text is of this form and cannot be of another. In `chat`: the answer, after the thinking. */
  format?: OutputFormat;
  /** Higher goes first; below 0 waits behind everybody. Default 0. */
  priority?: number;
  /** Stops it wherever it is, also in the middle of the prompt. */
  signal?: AbortSignal;
  /** Prompt tokens computed, of all. */
  onProgress?: Progress;
}

export const GENERATE_OPTIONS = [
  'maxTokens',
  'stop',
  'stopTokens',
  'ignoreEos',
  'format',
  'priority',
  'addSpecial',
  'parseSpecial',
  'signal',
  'onProgress',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'logitBias',
  'seed',
  'logprobs',
] as const satisfies readonly (keyof GenerateOptions)[];

/** Options of `chat`: those of `generate`, and how the conversation becomes a prompt and the answer is read. */
export interface ChatOptions extends Omit<GenerateOptions, 'addSpecial' | 'parseSpecial'> {
  /** Tools the model may call. */
  tools?: readonly ToolDefinition[];
  /** Asks templates that can to turn thinking on or off. Default: the template's. */
  thinking?: boolean;
  /** `none` leaves `<think>` (one that the prompt opened too) and tool calls in the text as the model wrote them. Default `separate`. */
  parse?: 'separate' | 'none';
  /** Whether a tool has to be called: `auto` leaves it to the model (default); `required` (any) or a name demand one call. */
  toolChoice?: 'auto' | 'none' | 'required' | { readonly name: string };
  /** Most tokens of thinking; then it is ended and the answer begins. */
  thinkingBudget?: number;
  /** Further variables of the chat template. */
  templateVariables?: Readonly<Record<string, unknown>>;
}

/** Those of them that shape the prompt. */
export type PromptOptions = Pick<ChatOptions, 'tools' | 'thinking' | 'thinkingBudget' | 'templateVariables'>;

export const CHAT_OPTIONS = [
  ...GENERATE_OPTIONS.filter((name) => name !== 'addSpecial' && name !== 'parseSpecial'),
  'tools',
  'toolChoice',
  'thinking',
  'thinkingBudget',
  'parse',
  'templateVariables',
] as const satisfies readonly (keyof ChatOptions)[];
