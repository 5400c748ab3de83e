/** The tokenizer of a model behind the face of @huggingface/transformers' `PreTrainedTokenizer`. */
import { checkOptionNames } from '../engine/option-names.ts';
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { chatPrompt } from '../text/chat-prompt.ts';
import { ChatTemplate, createChatTemplate } from '../text/chat-template.ts';
import type { ChatMessage } from '../text/messages.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { BATCH_OPTIONS, type BatchOptions, type Encoding, encodingOf, type Padding } from './batch-encoding.ts';
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

export interface CallOptions extends EncodeOptions, BatchOptions {
  /** Only null: texts come alone. */
  text_pair?: null;
}

export interface TemplateOptions extends BatchOptions {
  /** Tools the model may call, as in the OpenAI API. */
  tools?: readonly ToolSpec[] | null;
  /** Jinja source instead of the model's. */
  chat_template?: string | null;
  /** End with the beginning of an answer. Default false. */
  add_generation_prompt?: boolean;
  /** False: the text. Default true: ids. */
  tokenize?: boolean;
  /** Default true: an object of `input_ids` and `attention_mask`. */
  return_dict?: boolean;
  /** Asks templates that can to think or not to. */
  enable_thinking?: boolean;
  /** Any other variable that the template reads. */
  [variable: string]: unknown;
}

type Ids = readonly (number | bigint)[] | Tensor;

export interface PreTrainedTokenizer {
  (text: string, options: CallOptions & { return_tensor: false }): Encoding<number[]>;
  (texts: readonly string[], options: CallOptions & { return_tensor: false }): Encoding<number[][]>;
  (text: string | readonly string[], options?: CallOptions): Encoding<Tensor>;
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
  /** What rows are filled with and where, and the most tokens of a row: yours to set. Without a pad token of its own the end token. */
  pad_token: string | undefined;
  pad_token_id: number | undefined;
  padding_side: 'left' | 'right';
  model_max_length: number;
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
    return face(tokenizer, template, await paddingOf(checkpoint, tokenizer));
  } finally {
    await checkpoint.close();
  }
}

/** As the tokenizer's configuration says. */
async function paddingOf(checkpoint: Checkpoint, tokenizer: Tokenizer): Promise<Padding> {
  const config = ((await checkpoint.tokenizerConfig?.()) ?? {}) as Record<string, unknown>;
  const written = config.pad_token as string | { content?: string } | null | undefined;
  const token = typeof written === 'string' ? written : written?.content;
  const stored = checkpoint.metadata.get('tokenizer.ggml.padding_token_id');
  const own = token === undefined ? stored : tokenizer.tokenId(token);
  const { model_max_length } = config;
  return {
    pad_token_id: own === undefined ? tokenizer.eosIds[0] : Number(own),
    padding_side: config.padding_side === 'left' ? 'left' : 'right',
    model_max_length: typeof model_max_length === 'number' ? model_max_length : Infinity,
  };
}

function face(tokenizer: Tokenizer, template: ChatTemplate | TandemError, padding: Padding): PreTrainedTokenizer {
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
  const call = (text: string | readonly string[], options: CallOptions = {}) => {
    checkOptionNames('the tokenizer', options, CALL_OPTIONS);
    const { add_special_tokens, text_pair, ...rest } = options;
    if (text_pair) throw notText(text_pair);
    const single = typeof text === 'string';
    const texts = single ? [text] : text;
    if (!Array.isArray(texts) || texts.length === 0) throw notText(text);
    return encodingOf(
      texts.map((each) => encode(each, { add_special_tokens })),
      rest,
      self,
      single,
    );
  };
  const apply_chat_template = (messages: readonly Message[], options: TemplateOptions = {}) => {
    const chosen = options.chat_template ? givenTemplate(options.chat_template, tokenizer) : template;
    if (chosen instanceof TandemError) throw chosen;
    const { tools, add_generation_prompt = false, tokenize = true, return_dict = true } = options;
    const conversation: ChatMessage[] = toChatMessages(messages);
    const prompt = chatPrompt(chosen, tokenizer, conversation, {
      tools: toTools(tools),
      addGenerationPrompt: add_generation_prompt,
      enableThinking: options.enable_thinking,
      kwargs: templateVariables(options, chosen.source),
    });
    if (!tokenize) return prompt.text;
    const batch = Object.fromEntries(BATCH_OPTIONS.map((name) => [name, options[name]])) as BatchOptions;
    const encoded = encodingOf([prompt.ids], batch, self, true);
    return return_dict ? encoded : encoded.input_ids;
  };
  const members = {
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
    pad_token: padding.pad_token_id === undefined ? undefined : tokenizer.decode([padding.pad_token_id]),
    ...padding,
  };
  const self = Object.assign(call, members) as unknown as PreTrainedTokenizer;
  return self;
}

function givenTemplate(source: string, { bosToken, eosToken }: Tokenizer): ChatTemplate {
  return ChatTemplate.create({ source, bosToken, eosToken });
}

/** What the options say beside those of the library: variables, if the template names them. */
function templateVariables(options: TemplateOptions, source: string): Record<string, unknown> {
  const others = Object.entries(options).filter(([name]) => !(TEMPLATE_OPTIONS as readonly string[]).includes(name));
  const unknown = others.filter(([name]) => !new RegExp(`\\b${name.replace(/\W/g, '\\W')}\\b`).test(source));
  checkOptionNames('apply_chat_template', Object.fromEntries(unknown), TEMPLATE_OPTIONS);
  return Object.fromEntries(others);
}

const CALL_OPTIONS = ['add_special_tokens', 'text_pair', ...BATCH_OPTIONS] as const;

const TEMPLATE_OPTIONS = [
  ...BATCH_OPTIONS,
  'tools',
  'chat_template',
  'add_generation_prompt',
  'tokenize',
  'return_dict',
  'enable_thinking',
] as const;

function notText(given: unknown): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule: 'a tokenizer takes a text, or a list of texts',
    given: Array.isArray(given) ? 'a list of other things, or an empty one' : String(given),
  });
}
