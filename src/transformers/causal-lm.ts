/** `AutoModelForCausalLM`: ids in, ids out, for code that does what `pipeline` does by itself. */
import type { Engine } from '../engine/engine.ts';
import { TandemError } from '../errors.ts';
import { answers } from './generate.ts';
import { checkGenerationOptions, type GenerationOptions } from './options.ts';
import { loadEngine, type PipelineOptions } from './pipeline.ts';
import { Tensor } from './tensor.ts';

export interface GenerateInputs extends GenerationOptions {
  /** Ids of prompts, [N, T]; what a tokenizer gives. */
  input_ids?: Tensor;
  inputs?: Tensor;
  /** 0 where a row was filled: the prompt is what has a 1. */
  attention_mask?: Tensor;
  /** Zeros, without effect. */
  token_type_ids?: Tensor;
  /** What shorter answers are filled with. Default: the last id of each. */
  pad_token_id?: number | null;
  /** Without effect: prompts that begin alike share what was computed anyway. */
  past_key_values?: unknown;
  /** True: an object with `sequences`. Default false: the ids. */
  return_dict_in_generate?: boolean;
}

const INPUTS = [
  'input_ids',
  'inputs',
  'attention_mask',
  'token_type_ids',
  'pad_token_id',
  'past_key_values',
  'return_dict_in_generate',
] as const satisfies readonly (keyof GenerateInputs)[];

export interface CausalLM extends AsyncDisposable {
  /** Rows as they were given and their answers, [N · num_return_sequences, T]; shorter ones are filled. */
  generate(
    inputs: GenerateInputs & { return_dict_in_generate: true },
  ): Promise<{ sequences: Tensor; past_key_values: null }>;
  generate(inputs: GenerateInputs): Promise<Tensor>;
  /** The loaded model, for what this face does not show. */
  readonly engine: Engine;
  dispose(): Promise<void>;
}

/** As `AutoModelForCausalLM.from_pretrained` there; options of `pipeline`. */
export const AutoModelForCausalLM = {
  async from_pretrained(model?: string | null, options: PipelineOptions = {}): Promise<CausalLM> {
    const { engine } = await loadEngine(model, options);
    const generate = async (inputs: GenerateInputs) => {
      checkGenerationOptions('generate', inputs, INPUTS);
      const {
        input_ids,
        inputs: alike,
        attention_mask,
        token_type_ids: _,
        past_key_values: __,
        pad_token_id,
        return_dict_in_generate = false,
        ...rest
      } = inputs;
      const prompts = promptsOf(input_ids ?? alike, attention_mask);
      if (rest.streamer && prompts.length > 1)
        throw notPrompts('a streamer takes one prompt', `${prompts.length} rows`);
      const found = await Promise.all(
        prompts.map(async ({ row, ids }) =>
          (await answers(engine, ids, rest)).map(({ tokens }) => ({ ids: [...row, ...tokens], last: tokens.at(-1) })),
        ),
      );
      const longest = Math.max(...found.flat().map(({ ids }) => ids.length));
      const rows = found
        .flat()
        .map(({ ids, last }) => [...ids, ...Array(longest - ids.length).fill(pad_token_id ?? last)]);
      const sequences = Tensor.of(rows);
      return return_dict_in_generate ? { sequences, past_key_values: null } : sequences;
    };
    const dispose = () => engine.dispose();
    return { generate, engine, dispose, [Symbol.asyncDispose]: dispose } as CausalLM;
  },
};

/** Each row as it was given, and its ids without what only fills it. */
function promptsOf(ids: Tensor | undefined, mask: Tensor | undefined): { row: number[]; ids: number[] }[] {
  const rule = 'generate takes the ids of prompts, [N, T], with an attention_mask of the same shape';
  if (!(ids instanceof Tensor)) throw notPrompts(rule, 'no input_ids');
  if (ids.dims.length !== 2) throw notPrompts(rule, `input_ids of [${ids.dims.join(', ')}]`);
  if (mask !== undefined && mask.dims.join() !== ids.dims.join())
    throw notPrompts(rule, `an attention_mask of [${mask.dims.join(', ')}] for [${ids.dims.join(', ')}]`);
  const masks = mask?.tolist();
  return ids.tolist().map((each, n) => {
    const row = each.map(Number);
    const kept = row.filter((_, at) => masks === undefined || masks[n][at] === 1n);
    if (kept.length === 0) throw notPrompts(rule, `row ${n} has no token that counts`);
    return { row, ids: kept };
  });
}

function notPrompts(rule: string, given: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule,
    given,
    fix: 'give it what the tokenizer gives',
  });
}
