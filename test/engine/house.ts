/** An Engine on the fake executable and the byte tokenizer, with the text it writes chosen by the test. */
import { Engine } from '../../src/engine/engine.ts';
import type { Batch, PassResult } from '../../src/program/batch.ts';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { FakeExecutable, type FakeOptions } from './fake-executable.ts';
import { byteTokenizer, END } from './fake-tokenizer.ts';

export const VOCAB = 258;

/** Opens thinking in the prompt, as DeepSeek-R1's does, and knows its tool markers. */
const TEMPLATE =
  '{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if thinking is defined and not thinking %}a:{% else %}a:<think>\n{% endif %}' +
  '{# <｜tool▁calls▁begin｜> #}';

interface HouseOptions extends Partial<FakeOptions> {
  maxRows?: number;
  maxOutputs?: number;
  maxSequences?: number;
}

export function house({ maxRows = 64, maxOutputs = 16, maxSequences = 8, ...options }: HouseOptions = {}) {
  const executable = new FakeExecutable({ pages: 64, vocabSize: VOCAB, contextLength: 2048, ...options });
  return { executable, engine: engineOn(executable, { maxRows, maxOutputs, maxSequences }) };
}

export function engineOn(
  executable: FakeExecutable,
  { maxRows = 64, maxOutputs = 16, maxSequences = 8, close = async () => {} } = {},
): Engine {
  return new Engine({
    executable,
    tokenizer: byteTokenizer,
    template: ChatTemplate.create({ source: TEMPLATE }),
    limits: { maxRows, maxOutputs, maxSequences, targetMs: 400, soloTargetMs: 1500, firstRows: 64 },
    close,
    info: {
      model: 'fake.gguf',
      architecture: 'fake',
      backend: 'fake',
      contextLength: executable.program.contextLength,
      contextLimit: 'model',
      vocabSize: VOCAB,
      kvType: 'f32',
      numerics: 'exact',
      warnings: [],
      weights: 0,
      kv: 0,
      buffers: 0,
      execution: executable.description,
    },
  });
}

/** Writes a given answer, whatever the prompt: byte by byte, then the end token. */
export class ScriptedExecutable extends FakeExecutable {
  readonly #script: readonly number[];
  readonly #promptLen: number;

  constructor(answer: string, promptLen: number) {
    super({ pages: 64, vocabSize: VOCAB, contextLength: 2048 });
    this.#script = [...new TextEncoder().encode(answer), END];
    this.#promptLen = promptLen;
  }
  override compute(batch: Batch): PassResult {
    const result = super.compute(batch);
    batch.outputs.forEach(({ sampling }, o) => {
      if (sampling) result.tokens[o] = this.#script[sampling.position - this.#promptLen] ?? END;
    });
    return result;
  }
}
