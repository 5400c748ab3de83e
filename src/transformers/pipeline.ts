/** `pipeline('text-generation', model)`: the call, its options and its results as @huggingface/transformers has them. */
import type { Engine } from '../engine/engine.ts';
import { type LoadOptions, load } from '../engine/load.ts';
import { TandemError } from '../errors.ts';
import { nearest } from '../nearest.ts';
import { answers, textOf } from './generate.ts';
import { isChat, type Message, type ToolSpec, toChatMessages, toTools } from './messages.ts';
import { HUB_OPTIONS, type HubOptions, modelFolder } from './model-files.ts';
import { checkGenerationOptions, type GenerationOptions } from './options.ts';
import { type PreTrainedTokenizer, tokenizerOf } from './tokenizer.ts';

/** Options of `pipeline`: those of the hub, `rules` and the others of `load`. */
export interface PipelineOptions extends HubOptions, LoadOptions {
  /** Of that library, without effect here: rules and the planner place a model, its file has its formats. */
  device?: unknown;
  dtype?: unknown;
  subfolder?: string;
  model_file_name?: string | null;
  config?: unknown;
  session_options?: unknown;
  use_external_data_format?: unknown;
}

const WITHOUT_EFFECT = [
  'device',
  'dtype',
  'subfolder',
  'model_file_name',
  'config',
  'session_options',
  'use_external_data_format',
] as const satisfies readonly (keyof PipelineOptions)[];

/** Options of a call. */
export interface TextGenerationOptions extends GenerationOptions {
  /** Texts only: begin with the prompt. Default true. */
  return_full_text?: boolean;
  /** Texts only: the model's begin token first. Default true. */
  add_special_tokens?: boolean;
  /** Chats only. */
  tools?: readonly ToolSpec[] | null;
  /** Chats only: variables of the chat template. */
  tokenizer_encode_kwargs?: Readonly<Record<string, unknown>>;
}

const CALL_OPTIONS = [
  'return_full_text',
  'add_special_tokens',
  'tools',
  'tokenizer_encode_kwargs',
] as const satisfies readonly (keyof TextGenerationOptions)[];

export type TextOutput = { generated_text: string }[];
export type ChatOutput = { generated_text: Message[] }[];

export interface TextGenerationPipeline extends AsyncDisposable {
  (text: string, options?: TextGenerationOptions): Promise<TextOutput>;
  (texts: readonly string[], options?: TextGenerationOptions): Promise<TextOutput[]>;
  (chat: readonly Message[], options?: TextGenerationOptions): Promise<ChatOutput>;
  (chats: readonly (readonly Message[])[], options?: TextGenerationOptions): Promise<ChatOutput[]>;
  readonly task: 'text-generation';
  readonly tokenizer: PreTrainedTokenizer;
  /** The loaded model, for what this face does not show. */
  readonly model: Engine;
  dispose(): Promise<void>;
}

const TASK = 'text-generation';

/**
 * Loads a model: a file, a folder, or `organization/model[:QUANT]`, which is downloaded where it is not here. Default: the
 * model that ships. Rejects with the errors of `load` and of downloads; REQUEST_INVALID for other tasks and options.
 */
export async function pipeline(
  task: typeof TASK,
  model?: string | null,
  options: PipelineOptions = {},
): Promise<TextGenerationPipeline> {
  if (task !== TASK)
    throw new TandemError('REQUEST_INVALID', {
      room: 'transformers',
      rule: `the pipeline that there is is ${TASK}`,
      given: String(task),
      fix:
        nearest(String(task), [TASK]) === undefined ? 'use @huggingface/transformers for it' : `did you mean ${TASK}?`,
    });
  const { engine, path } = await loadEngine(model, options);
  const tokenizer = await tokenizerOf(path);
  tokenizer.padding_side = 'left'; // as that pipeline has it: an answer follows what was said
  options.progress_callback?.({ status: 'ready', task, model: model ?? path });
  return face(engine, tokenizer);
}

/** A model by its name, downloaded where it is not here; what has no effect is warned of. */
export async function loadEngine(
  model: string | null | undefined,
  options: PipelineOptions,
): Promise<{ engine: Engine; path: string }> {
  warnOf(options);
  const rest = without(options, [...HUB_OPTIONS, ...WITHOUT_EFFECT]);
  const path = await modelFolder(model, only(options, HUB_OPTIONS));
  return { engine: await load(path, rest), path };
}

function face(engine: Engine, tokenizer: PreTrainedTokenizer): TextGenerationPipeline {
  const one = async (input: string | readonly Message[], options: TextGenerationOptions) => {
    const {
      return_full_text = true,
      add_special_tokens,
      tools,
      tokenizer_encode_kwargs: templateVariables,
      ...rest
    } = options;
    if (typeof input === 'string') {
      const ids = tokenizer.encode(input, { add_special_tokens });
      const found = await answers(engine, ids, rest);
      return found.map((answer) => {
        const text = textOf(answer, tokenizer);
        return { generated_text: return_full_text ? input + text : text };
      });
    }
    const ids = await engine.promptTokens(toChatMessages(input), { tools: toTools(tools), templateVariables });
    const found = await answers(engine, ids, rest);
    return found.map((answer) => ({
      generated_text: [...input, { role: 'assistant', content: textOf(answer, tokenizer) }],
    }));
  };
  const call = async (input: unknown, options: TextGenerationOptions = {}) => {
    checkGenerationOptions('a pipeline call', options, CALL_OPTIONS);
    if (typeof input === 'string' || isChat(input)) return one(input, options);
    const many =
      Array.isArray(input) && input.length > 0 && input.every((each) => typeof each === 'string' || isChat(each));
    if (!many) throw notPrompts(input);
    if (options.streamer && input.length > 1) throw notPrompts(input, 'a streamer takes one');
    return Promise.all(input.map((each) => one(each, options)));
  };
  const dispose = () => engine.dispose();
  return Object.assign(call, {
    task: TASK,
    tokenizer,
    model: engine,
    dispose,
    [Symbol.asyncDispose]: dispose,
  }) as TextGenerationPipeline;
}

function warnOf(options: PipelineOptions): void {
  const found = WITHOUT_EFFECT.filter((name) => options[name] !== undefined && options[name] !== null);
  if (found.length === 0) return;
  process.emitWarning(
    `[transformers] ${found.join(', ')} ha${found.length === 1 ? 's' : 've'} no effect here; rules place a model, and :QUANT in its name chooses its format`,
    { code: 'TANDEM_NO_EFFECT' },
  );
}

function without<T extends object, K extends keyof T>(options: T, names: readonly K[]): Omit<T, K> {
  return Object.fromEntries(Object.entries(options).filter(([name]) => !names.includes(name as K))) as Omit<T, K>;
}

function only<T extends object, K extends keyof T>(options: T, names: readonly K[]): Pick<T, K> {
  return Object.fromEntries(Object.entries(options).filter(([name]) => names.includes(name as K))) as Pick<T, K>;
}

function notPrompts(
  input: unknown,
  rule = 'a pipeline takes a text, a chat (messages with role and content), or an array of either',
): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule,
    given: (JSON.stringify(input) ?? String(input)).slice(0, 80),
  });
}
