/** A synthetic file behaves like a model: it opens, has a tokenizer, gives finite logits and spreads its router's load. */
import { expect, test } from 'vitest';
import { referenceBackend } from '../../src/backend/reference.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { writeGguf } from '../../src/formats/gguf-writer.ts';
import { memoryFolder } from '../../src/formats/memory-source.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../../src/models/public-configs.ts';
import { synthesize } from '../../src/models/synthesize.ts';
import { createTokenizer } from '../../src/text/tokenizer.ts';
import { MemorySink } from './make-tiny.ts';
import { placedProgram, wholeBatch } from './run.ts';

/** The shape's habits in small: expert rows that are no multiple of 256. */
const SMALL = {
  vocab_size: 1500,
  hidden_size: 256,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 512,
  moe_intermediate_size: 160,
  n_routed_experts: 32,
  n_group: 1,
  topk_group: 1,
  num_experts: 32,
  num_experts_per_tok: 4,
  num_local_experts: 32,
  max_position_embeddings: 1024,
};

const MODELS: PublicModel[] = [
  'deepseek-v2-lite',
  'deepseek-v3',
  'glm-4.5-air',
  'gpt-oss-20b',
  'qwen3-30b-a3b',
  'mixtral-8x7b',
];

test.each(MODELS)('%s', async (name) => {
  const sink = new MemorySink();
  const config = { ...PUBLIC_CONFIGS[name], ...SMALL };
  await writeGguf(sink, 'model.gguf', await synthesize(config, { name, mix: 'q4_k_m', seed: 2 }));
  const checkpoint = await openGguf(memoryFolder(sink.files), 'model.gguf');
  const tokenizer = await createTokenizer(checkpoint);
  const text = 'the quick brown fox — 4 L of water, 水 – jumps over the lazy dog';
  const encoded = tokenizer.encode(text);
  expect(tokenizer.decode(encoded)).toBe(text);
  expect(encoded.length).toBeLessThan(new TextEncoder().encode(text).length);

  const ids = Array.from({ length: 48 }, (_, i) => 300 + 23 * i);

  const program = await placedProgram(checkpoint, { activations: 'rounded', kvType: 'bf16' });
  const limits = { pages: 1, maxRows: ids.length, maxOutputs: ids.length };
  await using executable = await referenceBackend().prepare(program, checkpoint, limits);
  const stepper = await executable.start(wholeBatch(ids));
  const loads: Map<number, number>[] = [];
  for (const [index, step] of program.steps.entries()) {
    await stepper.step(index);
    if (step.op !== 'router') continue;
    const load = new Map<number, number>();
    for (const id of await stepper.read(step.outputs[0])) load.set(id, (load.get(id) ?? 0) + 1);
    loads.push(load);
  }
  const logits = (await stepper.finish()).logits!;
  const size = Math.sqrt(logits.reduce((sum, x) => sum + x * x, 0) / logits.length);
  expect(size).toBeGreaterThan(0.3);
  expect(size).toBeLessThan(3);
  expect(loads.length).toBeGreaterThan(0);
  for (const load of loads) {
    // 6 of 48 tokens go to an expert on average; one or two are liked by the part that all tokens share.
    expect(load.size).toBeGreaterThan(24);
    expect(Math.max(...load.values())).toBeLessThan(ids.length * 0.5);
  }
});
