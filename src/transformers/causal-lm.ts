/** `AutoModelForCausalLM`: ids in, ids out, for code that does what `pipeline` does by itself. */
import type { Engine } from '../engine/engine.ts';
import { TandemError } from '../errors.ts';
import { answers } from './generate.ts';
import { checkGenerationOptions, type GenerationOptions } from './options.ts';
import { loadEngine, type PipelineOptions } from './pipeline.ts';
import { Tensor } from './tensor.ts';

export interface GenerateInputs extends GenerationOptions {
  /** Ids of one prompt, [1, T]; what a tokenizer gives. */
  input_ids?: Tensor;
  inputs?: Tensor;
  /** All ones: there is no padding here. */
  attention_mask?: Tensor;
  /** Without effect: prompts that begin alike share what was computed anyway. */
  past_key_values?: unknown;
  /** True: an object with `sequences`. Default false: the ids. */
  return_dict_in_generate?: boolean;
}

const INPUTS = [
  'input_ids',
  'inputs',
  'attention_mask',
  'past_key_values',
  'return_dict_in_generate',
] as const satisfies readonly (keyof GenerateInputs)[];

export interface CausalLM extends AsyncDisposable {
  /** Prompt and answer, [num_return_sequences, T]; shorter answers are filled with their last id. */
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
        past_key_values: _,
        return_dict_in_generate = false,
        ...rest
      } = inputs;
      const prompt = promptOf(input_ids ?? alike, attention_mask);
      const found = await answers(engine, prompt, rest);
      const longest = Math.max(...found.map(({ tokens }) => tokens.length));
      const rows = found.map(({ tokens }) => [
        ...prompt,
        ...tokens,
        ...Array(longest - tokens.length).fill(tokens.at(-1)),
      ]);
      const sequences = Tensor.of(rows);
      return return_dict_in_generate ? { sequences, past_key_values: null } : sequences;
    };
    const dispose = () => engine.dispose();
    return { generate, engine, dispose, [Symbol.asyncDispose]: dispose } as CausalLM;
  },
};

function promptOf(ids: Tensor | undefined, mask: Tensor | undefined): number[] {
  const whole = ids instanceof Tensor && ids.dims.length === 2 && ids.dims[0] === 1;
  if (whole && (mask === undefined || mask.data.every((bit) => bit === 1n))) return Array.from(ids.data, Number);
  throw new TandemError('REQUEST_INVALID', {
    room: 'transformers',
    rule: 'generate takes the ids of one prompt, without padding',
    given: whole
      ? 'the attention_mask has zeros'
      : ids instanceof Tensor
        ? `input_ids of [${ids.dims.join(', ')}]`
        : 'no input_ids',
    fix: 'call it for each prompt with what the tokenizer gives',
  });
}
