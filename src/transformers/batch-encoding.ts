/** Rows of ids → what a call of a tokenizer gives there: padded, truncated, as arrays or tensors. */
import { TandemError } from '../errors.ts';
import { Tensor } from './tensor.ts';

export interface BatchOptions {
  /** `true`: to the longest row; `'max_length'`: to `max_length`. Default false. */
  padding?: boolean | 'max_length';
  /** Rows longer than `max_length` lose their end. Default: where `max_length` is given without padding. */
  truncation?: boolean | null;
  /** Default: the tokenizer's `model_max_length`. */
  max_length?: number | null;
  /** False: plain arrays. Default true. */
  return_tensor?: boolean;
  /** A third row of zeros beside ids and mask: there are no pairs of texts. Default false. */
  return_token_type_ids?: boolean | null;
}

export const BATCH_OPTIONS = [
  'padding',
  'truncation',
  'max_length',
  'return_tensor',
  'return_token_type_ids',
] as const satisfies readonly (keyof BatchOptions)[];

export interface Encoding<T> {
  readonly input_ids: T;
  /** 1 where there is text, 0 where a row was filled. */
  readonly attention_mask: T;
  readonly token_type_ids?: T;
}

/** What a tokenizer says of filling; its owner may change it. */
export interface Padding {
  readonly padding_side: 'left' | 'right';
  readonly pad_token_id: number | undefined;
  readonly model_max_length: number;
}

/** `single`: of one text arrays without a row around them. REQUEST_INVALID where rows of different lengths are to be a tensor. */
export function encodingOf(
  rows: readonly (readonly number[])[],
  options: BatchOptions,
  pad: Padding,
  single: boolean,
): Encoding<Tensor> | Encoding<number[]> | Encoding<number[][]> {
  const { padding = false, return_tensor = true, return_token_type_ids = false } = options;
  const { truncation, length } = limitsOf(rows, options, pad);
  const width = padding === false ? 0 : length;
  const cut = truncation ? rows.map((row) => row.slice(0, length)) : rows;
  if (return_tensor && cut.some((row) => Math.max(row.length, width) !== Math.max(cut[0].length, width)))
    throw invalid('rows of a tensor are of one length', `texts of ${cut.map((row) => row.length).join(', ')} tokens`, 'add padding: true, truncation: true, or return_tensor: false'); // biome-ignore format: one thought a line
  const filler = pad.pad_token_id;
  if (filler === undefined && cut.some((row) => row.length < width))
    throw invalid('a tokenizer that fills rows has a pad_token', 'this one has none', 'set tokenizer.pad_token_id');
  const filled = (row: readonly number[], value: number): number[] => {
    const more = new Array<number>(Math.max(0, width - row.length)).fill(value);
    return pad.padding_side === 'left' ? [...more, ...row] : [...row, ...more];
  };
  const shaped = (all: number[][]) => (return_tensor ? Tensor.of(all) : single ? all[0] : all);
  const zeros = (row: readonly number[]) => row.map(() => 0);
  return {
    input_ids: shaped(cut.map((row) => filled(row, filler ?? 0))),
    attention_mask: shaped(
      cut.map((row) =>
        filled(
          row.map(() => 1),
          0,
        ),
      ),
    ),
    ...(return_token_type_ids && { token_type_ids: shaped(cut.map((row) => filled(zeros(row), 0))) }),
  } as Encoding<Tensor>;
}

/** As there: a limit alone truncates; with `padding: true` and no word on truncation it counts for nothing. */
function limitsOf(rows: readonly (readonly number[])[], options: BatchOptions, pad: Padding) {
  const { padding = false, truncation, max_length } = options;
  if (max_length !== undefined && max_length !== null && !(Number.isInteger(max_length) && max_length >= 1))
    throw invalid('max_length is a whole number, 1 or more', String(max_length));
  if (padding !== true && padding !== false && padding !== 'max_length')
    throw invalid("padding is true, false or 'max_length'", String(padding));
  const silent = truncation === undefined || truncation === null;
  const ignored = silent && padding === true;
  const asked = max_length === null || ignored ? undefined : max_length;
  const most = Math.min(asked ?? Infinity, pad.model_max_length);
  if (padding === 'max_length' && most === Infinity)
    throw invalid("padding: 'max_length' has a length", 'neither max_length nor model_max_length is known', 'give max_length'); // biome-ignore format: one thought a line
  const longest = rows.reduce((length, row) => Math.max(length, row.length), 0);
  const length = padding === true ? Math.min(longest, most) : most;
  return { truncation: truncation === true || (silent && padding === false && asked !== undefined), length };
}

function invalid(rule: string, given: string, fix?: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'transformers', rule, given, fix });
}
