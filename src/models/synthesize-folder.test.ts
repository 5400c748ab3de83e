import { expect, test } from 'vitest';
import { openHuggingFace } from '../formats/huggingface.ts';
import { memoryFolder } from '../formats/memory-source.ts';
import { writeSafetensors } from '../formats/safetensors-writer.ts';
import type { SinkFolder } from '../formats/sink.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { buildProgram } from './index.ts';
import { PUBLIC_CONFIGS } from './public-configs.ts';
import { FOLDER_FORMATS, synthesizeFolder } from './synthesize-folder.ts';

const config = {
  ...PUBLIC_CONFIGS['deepseek-v2-lite'],
  vocab_size: 3000,
  hidden_size: 256,
  num_hidden_layers: 2,
  intermediate_size: 320,
  moe_intermediate_size: 160,
  n_routed_experts: 4,
  num_experts_per_tok: 2,
  num_attention_heads: 2,
};

/** A folder in memory. */
function memorySink(files: Record<string, Uint8Array>): SinkFolder {
  return {
    name: 'memory',
    create: async (name) => {
      const parts: number[] = [];
      return {
        name,
        write: async (bytes) => {
          for (const byte of bytes) parts.push(byte);
        },
        close: async () => {
          files[name] = Uint8Array.from(parts);
        },
        abort: async () => {},
      };
    },
  };
}

test.each(FOLDER_FORMATS)('a folder of %s is one that Tandem reads, with a tokenizer', async (format) => {
  const { files, tensors } = await synthesizeFolder(config, { format });
  const written: Record<string, Uint8Array> = {};
  await writeSafetensors(memorySink(written), 'model.safetensors', tensors);
  const checkpoint = await openHuggingFace(memoryFolder({ ...files, ...written }));
  const { program } = await buildProgram(checkpoint);
  const experts = program.steps.find(({ op }) => op === 'experts')!;
  const formats = experts.inputs
    .slice(3, 6)
    .map((input) => program.weights[(input as { weight: number }).weight].format);
  expect(formats).toEqual([format, format, format]);
  const head = program.weights.find(({ name }) => name === 'lm_head.weight')!;
  expect(head.format).toBe('bf16');
  const tokenizer = await createTokenizer(checkpoint);
  expect(tokenizer.decode(tokenizer.encode('an example, and Ünicode'))).toBe('an example, and Ünicode');
});

test('a producer that gives other lengths is told', async () => {
  const tensor = { name: 'x', dtype: 'F32', shape: [2], bytes: 8 };
  const write = (data: Uint8Array) =>
    writeSafetensors(memorySink({}), 'x.safetensors', [{ ...tensor, data: () => [data] }]);
  await expect(write(new Uint8Array(12))).rejects.toThrow('"x" has 8 bytes; its producer gave more');
  await expect(write(new Uint8Array(4))).rejects.toThrow('"x" has 8 bytes; its producer gave 4');
});
