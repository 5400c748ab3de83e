/**
 * What a sequence may draw next: nothing forbidden while it thinks, tokens that end the thinking when its budget is
 * used up, then only what keeps the form that was asked for.
 *
 *     thinking ──gate seen──▶ answering (by the format, or free)
 *        └── budget used up: `closing` is forced, token by token
 */
import type { Tokenizer } from '../text/tokenizer.ts';
import type { FormatMatcher } from './grammar.ts';

export interface GuideOptions {
  readonly tokenizer: Tokenizer;
  readonly vocabSize: number;
  readonly format?: FormatMatcher;
  /** Absent: the model does not think. */
  readonly thinking?: {
    /** The prompt ends inside; else the model may begin with `open`. */
    readonly inside: boolean;
    /** Token that opens thinking, where it is one. */
    readonly open?: number;
    /** Text that ends it. */
    readonly gate: string;
    /** Ids that end it. */
    readonly closing: readonly number[];
    /** Most tokens. */
    readonly budget?: number;
  };
}

const NOTHING = new Uint8Array(0);

export class Guide {
  readonly #options: GuideOptions;
  readonly #gate: Buffer;
  readonly #forced: number[] = [];
  #state: 'start' | 'thinking' | 'answering';
  #thought = 0;
  #cut = false;
  /** Last bytes of the thinking, where the gate may begin. */
  #tail: Buffer = Buffer.from(NOTHING);

  constructor(options: GuideOptions) {
    const { thinking } = options;
    this.#options = options;
    this.#gate = Buffer.from(thinking?.gate ?? '');
    this.#state = thinking === undefined ? 'answering' : thinking.inside ? 'thinking' : 'start';
    if (this.#state === 'thinking') this.#limit();
  }

  /** True when `mask` may be asked; no token is drawn before. */
  get ready(): boolean {
    return this.#format?.ready ?? true;
  }

  /** True once thinking was ended for the model: it may go on with it, and end it again. */
  get cut(): boolean {
    return this.#cut;
  }

  /** Resolves when `ready`; rejects where the output left its form. */
  get settled(): Promise<void> | undefined {
    return this.#options.format?.settled;
  }

  /** The form, where the next token has to keep it. */
  get #format(): FormatMatcher | undefined {
    return this.#state === 'thinking' || this.#forced.length > 0 ? undefined : this.#options.format;
  }

  /** Bits of the tokens that may come next; undefined: all. */
  mask(): Uint32Array | undefined {
    const { thinking, vocabSize } = this.#options;
    const [next] = this.#forced;
    if (next !== undefined) return withBit(new Uint32Array(Math.ceil(vocabSize / 32)), next);
    const format = this.#format;
    if (format === undefined) return undefined;
    if (this.#state === 'start' && thinking?.open !== undefined) return withBit(format.mask.slice(), thinking.open);
    return format.mask;
  }

  /** A token was drawn. */
  accept(token: number): void {
    const { format, thinking } = this.#options;
    const forced = this.#forced[0] === token;
    if (forced) this.#forced.shift();
    if (this.#state === 'start') {
      this.#state = token === thinking?.open ? 'thinking' : 'answering';
      if (this.#state === 'thinking') {
        this.#limit();
        return;
      }
    }
    if (this.#state === 'thinking') this.#think(token);
    else if (!forced) format?.accept(token); // what ends the thinking may go on behind the gate
  }

  dispose(): void {
    this.#options.format?.dispose();
  }

  #think(token: number): void {
    const { tokenizer } = this.#options;
    this.#thought++;
    const text = Buffer.concat([this.#tail, tokenizer.tokenBytes(token)]);
    if (text.includes(this.#gate)) {
      this.#state = 'answering';
      return;
    }
    this.#tail = text.subarray(Math.max(0, text.length - this.#gate.length));
    this.#limit();
  }

  #limit(): void {
    const { budget, closing = [] } = this.#options.thinking ?? {};
    if (budget === undefined || this.#thought < budget || this.#forced.length > 0) return;
    this.#forced.push(...closing);
    this.#cut = true;
  }
}

function withBit(mask: Uint32Array, token: number): Uint32Array {
  mask[token >> 5] |= 1 << (token & 31);
  return mask;
}
