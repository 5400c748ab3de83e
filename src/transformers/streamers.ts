/** Text while it is generated, by the faces of @huggingface/transformers. */
import type { DecodeOptions } from './tokenizer.ts';

/** What a call feeds: first the ids of the prompt, then each new token, then the end. */
export interface Streamer {
  put(value: readonly (readonly bigint[])[]): void;
  end(): void;
}

/** Extend it for a streamer of your own. */
export class BaseStreamer implements Streamer {
  put(_value: readonly (readonly bigint[])[]): void {
    throw new Error('a streamer overrides put');
  }

  end(): void {
    throw new Error('a streamer overrides end');
  }
}

export interface TextStreamerOptions extends DecodeOptions {
  /** Leave the prompt out. Default false. */
  skip_prompt?: boolean;
  /** Gets the text. Default: it is written to stdout. */
  callback_function?: ((text: string) => void) | null;
  /** Gets the ids, as they come. */
  token_callback_function?: ((tokens: bigint[]) => void) | null;
  /** For the tokenizer's `decode`. */
  decode_kwargs?: DecodeOptions;
}

interface Decoder {
  decode(ids: readonly bigint[], options?: DecodeOptions): string;
}

/** The replacement character at the end: a code point whose last bytes are yet to come. */
const UNFINISHED = /\uFFFD+$/;

/** Gives text on as soon as words are whole; every character is given once and none is taken back. */
export class TextStreamer extends BaseStreamer {
  readonly tokenizer: Decoder;
  readonly skip_prompt: boolean;
  readonly callback_function: (text: string) => void;
  readonly token_callback_function: ((tokens: bigint[]) => void) | null;
  readonly decode_kwargs: DecodeOptions;
  /** Ids of the line that is being written, and how much of its text was given on. */
  token_cache: bigint[] = [];
  print_len = 0;
  next_tokens_are_prompt = true;
  readonly #toStdout: boolean;

  constructor(tokenizer: Decoder, options: TextStreamerOptions = {}) {
    super();
    const { skip_prompt = false, callback_function, token_callback_function = null, decode_kwargs, ...rest } = options;
    this.tokenizer = tokenizer;
    this.skip_prompt = skip_prompt;
    this.#toStdout = callback_function == null;
    this.callback_function = callback_function ?? ((text) => void process.stdout.write(text));
    this.token_callback_function = token_callback_function;
    this.decode_kwargs = { skip_special_tokens: true, ...rest, ...decode_kwargs };
  }

  override put(value: readonly (readonly bigint[])[]): void {
    if (value.length !== 1) throw new Error('a TextStreamer takes one sequence; call without num_return_sequences');
    const isPrompt = this.next_tokens_are_prompt;
    this.next_tokens_are_prompt = false;
    if (isPrompt && this.skip_prompt) return;
    this.token_callback_function?.([...value[0]]);
    this.token_cache.push(...value[0]);
    const text = this.tokenizer.decode(this.token_cache, this.decode_kwargs);
    if (isPrompt || text.endsWith('\n')) this.#startOver(text);
    else this.#give(text, wholeUpTo(text), false);
  }

  override end(): void {
    const text = this.tokenizer.decode(this.token_cache, this.decode_kwargs);
    this.#give(text, text.length, true);
    this.token_cache = [];
    this.print_len = 0;
    this.next_tokens_are_prompt = true;
  }

  /** Override to do something else with the text. */
  on_finalized_text(text: string, stream_end: boolean): void {
    if (text !== '') this.callback_function(text);
    if (stream_end && this.#toStdout) this.callback_function('\n');
  }

  /** Ids decoded once need not be decoded again with every token. */
  #startOver(text: string): void {
    this.#give(text, text.length, false);
    this.token_cache = [];
    this.print_len = 0;
  }

  #give(text: string, end: number, last: boolean): void {
    const piece = text.slice(this.print_len, end);
    this.print_len = Math.max(this.print_len, end);
    this.on_finalized_text(piece, last);
  }
}

/** The end of the last whole word; scripts without spaces are whole at every character. */
function wholeUpTo(text: string): number {
  const known = text.replace(UNFINISHED, '');
  const spaceless = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]$/u.test(known);
  return spaceless ? known.length : known.lastIndexOf(' ') + 1;
}
