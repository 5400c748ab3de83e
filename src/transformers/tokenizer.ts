/** The tokenizer of a model behind the face of @huggingface/transformers' `PreTrainedTokenizer`. */
import { checkOptionNames } from '../engine/option-names.ts';
import { TandemError } from '../errors.ts';
import { openCheckpoint } from '../formats/open.ts';
import { chatPrompt } from '../text/chat-prompt.ts';
import { type ChatTemplate, createChatTemplate } from '../text/chat-template.ts';
import type { ChatMessage } from '../text/messages.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { type Message, type ToolSpec, toChatMessages, toTools } from './messages.ts';
import { type HubOptions, modelFolder } from './model-files.ts';
import { Tensor } from './tensor.ts';

export interface DecodeOptions {
  /** Leave control tokens out. Default false. */
  skip_special_tokens?: boolean;
  /** Not done here: text comes out as the model wrote it. */
  clean_up_tokenization_spaces?: boolean;
}

export interface EncodeOptions {
  /** Begin and end tokens as the model wants them. Default true. */
  add_special_tokens?: boolean;
}

export interface CallOptions extends EncodeOptions {
  /** False: plain arrays. Default true. */
  return_tensor?: boolean;
}

export interface TemplateOptions {
  /** Tools the model may call, as in the OpenAI API. */
  tools?: readonly ToolSpec[] | null;
  /** End with the beginning of an answer. Default false. */
  add_generation_prompt?: boolean;
  /** False: the text. Default true: ids. */
  tokenize?: boolean;
  return_tensor?: boolean;
  /** Default true: an object of `input_ids` and `attention_mask`. */
  return_dict?: boolean;
  /** Asks templates that can to think or not to. */
  enable_thinking?: boolean;
}

export interface Encoding<T> {
  readonly input_ids: T;
  readonly attention_mask: T;
}

type Ids = readonly (number | bigint)[] | Tensor;

export interface PreTrainedTokenizer {
  (text: string, options: CallOptions & { return_tensor: false }): Encoding<number[]>;
  (text: string, options?: CallOptions): Encoding<Tensor>;
  encode(text: string, options?: EncodeOptions): number[];
  decode(ids: Ids, options?: DecodeOptions): string;
  batch_decode(rows: readonly Ids[] | Tensor, options?: DecodeOptions): string[];
  /** The text of each token. */
  tokenize(text: string, options?: EncodeOptions): string[];
  apply_chat_template(messages: readonly Message[], options: TemplateOptions & { tokenize: false }): string;
  apply_chat_template(
    messages: readonly Message[],
    options: TemplateOptions & { return_dict: false; return_tensor: false },
  ): number[];
  apply_chat_template(messages: readonly Message[], options?: TemplateOptions): Encoding<Tensor>;
  readonly chat_template: string | undefined;
  readonly bos_token: string | undefined;
  readonly bos_token_id: number | undefined;
  readonly eos_token: string | undefined;
  readonly eos_token_id: number | undefined;
}

/** As `AutoTokenizer.from_pretrained` there. */
export const AutoTokenizer = {
  /** A file, a folder, or `organization/model[:QUANT]`, which is downloaded where it is not here. Default: the model that ships. */
  async from_pretrained(model?: string | null, options: HubOptions = {}): Promise<PreTrainedTokenizer> {
    return tokenizerOf(await modelFolder(model, options));
  },
};

/** The tokenizer of the model at a path. */
export async function tokenizerOf(path: string): Promise<PreTrainedTokenizer> {
  const checkpoint = await openCheckpoint(path);
  try {
    const tokenizer = await createTokenizer(checkpoint);
    const template = await createChatTemplate(checkpoint, tokenizer).catch((error) => {
      if (error instanceof TandemError && error.code === 'TEMPLATE_INVALID') return error; // told when it is asked for
      throw error;
    });
    return face(tokenizer, template);
  } finally {
    await checkpoint.close();
  }
}

function face(tokenizer: Tokenizer, template: ChatTemplate | TandemError): PreTrainedTokenizer {
  const encode = (text: string, options: EncodeOptions = {}): number[] => {
    checkOptionNames('encode', options, ['add_special_tokens']);
    if (typeof text !== 'string') throw notText(text);
    // That library reads control tokens wherever they stand.
    return tokenizer.encode(text, { addSpecial: options.add_special_tokens ?? true, parseSpecial: true });
  };
  const decode = (ids: Ids, { skip_special_tokens = false }: DecodeOptions = {}): string => {
    const numbers = Array.from(ids instanceof Tensor ? ids.data : ids, Number);
    return tokenizer.decode(skip_special_tokens ? numbers.filter((id) => !tokenizer.isSpecial(id)) : numbers);
  };
  const encoding = (ids: number[], tensor: boolean): Encoding<Tensor> | Encoding<number[]> => {
    const mask = ids.map(() => 1);
    return tensor
      ? { input_ids: Tensor.of([ids]), attention_mask: Tensor.of([mask]) }
      : { input_ids: ids, attention_mask: mask };
  };
  const call = (text: string, options: CallOptions = {}) => {
    checkOptionNames('the tokenizer', options, ['add_special_tokens', 'return_tensor']);
    const { return_tensor = true, ...rest } = options;
    return encoding(encode(text, rest), return_tensor);
  };
  const apply_chat_template = (messages: readonly Message[], options: TemplateOptions = {}) => {
    checkOptionNames('apply_chat_template', options, TEMPLATE_OPTIONS);
    if (template instanceof TandemError) throw template;
    const { tools, add_generation_prompt = false, tokenize = true, return_tensor = true, return_dict = true } = options;
    const conversation: ChatMessage[] = toChatMessages(messages);
    const prompt = chatPrompt(template, tokenizer, conversation, {
      tools: toTools(tools),
      addGenerationPrompt: add_generation_prompt,
      enableThinking: options.enable_thinking,
    });
    if (!tokenize) return prompt.text;
    if (return_dict) return encoding(prompt.ids, return_tensor);
    return return_tensor ? Tensor.of([prompt.ids]) : prompt.ids;
  };
  return Object.assign(call, {
    encode,
    decode,
    batch_decode: (rows: readonly Ids[] | Tensor, options?: DecodeOptions) =>
      (rows instanceof Tensor ? rows.tolist() : rows).map((row) => decode(row, options)),
    tokenize: (text: string, options: EncodeOptions = {}) =>
      encode(text, { add_special_tokens: false, ...options }).map((id) => tokenizer.decode([id])),
    apply_chat_template,
    chat_template: template instanceof TandemError ? undefined : template.source,
    bos_token: tokenizer.bosToken,
    bos_token_id: tokenizer.bosId,
    eos_token: tokenizer.eosToken,
    eos_token_id: tokenizer.eosIds[0],
  }) as PreTrainedTokenizer;
}

const TEMPLATE_OPTIONS = [
  'tools',
  'add_generation_prompt',
  'tokenize',
  'return_tensor',
  'return_dict',
  'enable_thinking',
] as const satisfies readonly (keyof TemplateOptions)[];

function notText(given: unknown): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule: 'a tokenizer takes one text',
    given: Array.isArray(given) ? 'an array' : String(given),
    fix: 'call it for each text',
  });
}
