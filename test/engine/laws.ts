/** What the suites of batch laws share: sequences around the page size, run alone and in company, in chunks of any size. */
import type { Executable } from '../../src/backend/backend.ts';
import { ChunkSize } from '../../src/engine/chunk-size.ts';
import { PagePool } from '../../src/engine/kv-cache.ts';
import { PrefixCache } from '../../src/engine/prefix-cache.ts';
import { Sampler, type SamplingOptions, samplingSettings } from '../../src/engine/sampling.ts';
import { Scheduler } from '../../src/engine/scheduler.ts';
import { Sequence } from '../../src/engine/sequence.ts';

export const LIMITS = { pages: 24, maxRows: 128, maxOutputs: 128 };
const greedy: SamplingOptions = { temperature: 0 };
const warm: SamplingOptions = { temperature: 1.2, topK: 30, topP: 0.95, minP: 0.01 };
const penalized: SamplingOptions = {
  temperature: 0.9,
  repetitionPenalty: 1.2,
  presencePenalty: 0.3,
  frequencyPenalty: 0.2,
};

interface Case {
  readonly prompt: number;
  readonly generate: number;
  readonly options: SamplingOptions;
}
/** Lengths around the page size; 7 in all. */
export const CASES: readonly Case[] = [
  { prompt: 64, generate: 10, options: greedy },
  { prompt: 1, generate: 80, options: warm },
  { prompt: 65, generate: 12, options: penalized },
  { prompt: 100, generate: 30, options: { ...warm, logitBias: { 3: 5, 7: -100 } } },
  { prompt: 7, generate: 20, options: greedy },
  { prompt: 63, generate: 70, options: warm },
  { prompt: 31, generate: 40, options: penalized },
];

function sequenceOf({ prompt, generate, options }: Case, index: number, vocabSize: number): Sequence {
  const ids = Int32Array.from({ length: prompt }, (_, i) => (i * i * 31 + i * 7 + index * 13) % vocabSize);
  const sampler = new Sampler(samplingSettings({ seed: 1000 + index, ...options }, {}, vocabSize), ids);
  return new Sequence({ prompt: ids, maxLen: prompt + generate, sampler, stopTokens: new Set() });
}

interface Company {
  /** Which cases run together. */
  readonly cases: readonly number[];
  readonly chunk?: number;
  readonly pages?: number;
  /** Everybody runs twice: the second time their prompts are in the prefix cache. */
  readonly again?: boolean;
}

export async function tokensOf(
  executable: Executable,
  { cases, chunk = 64, pages = LIMITS.pages, again = false }: Company,
) {
  const sizes = new ChunkSize({ minRows: chunk, maxRows: chunk, firstRows: chunk, targetMs: 1 });
  const pool = new PagePool(pages);
  const prefixes = again ? new PrefixCache(pool) : undefined;
  const scheduler = new Scheduler({ ...LIMITS, maxSequences: 8, pool, chunk: sizes, prefixes });
  if (again) {
    for (const index of cases) scheduler.add(sequenceOf(CASES[index], index, executable.program.vocabSize));
    for (let plan = scheduler.next(); plan; plan = scheduler.next())
      scheduler.commit(plan, await executable.run(plan.batch));
  }
  const sequences = cases.map((index) => sequenceOf(CASES[index], index, executable.program.vocabSize));
  for (const sequence of sequences) scheduler.add(sequence);
  for (let plan = scheduler.next(); plan; plan = scheduler.next())
    scheduler.commit(plan, await executable.run(plan.batch));
  return { tokens: sequences.map((sequence) => [...sequence.tokens()]), stats: scheduler.stats };
}

/** Logits [length, V] of one prompt in chunks, alone or beside another sequence. */
export async function logitsOf(
  executable: Executable,
  length: number,
  chunk: number,
  neighbour: boolean,
): Promise<Float32Array> {
  const { vocabSize } = executable.program;
  const sizes = new ChunkSize({ minRows: chunk, maxRows: chunk, firstRows: chunk, targetMs: 1 });
  const scheduler = new Scheduler({ ...LIMITS, maxSequences: 8, pool: new PagePool(LIMITS.pages), chunk: sizes });
  if (neighbour) scheduler.add(sequenceOf(CASES[6], 6, vocabSize));
  const prompt = Int32Array.from({ length }, (_, i) => (i * 17 + 5) % vocabSize);
  scheduler.add(new Sequence({ prompt, maxLen: length, sampler: null, stopTokens: new Set() }));
  const logits = new Float32Array(length * vocabSize);
  for (let plan = scheduler.next(); plan; plan = scheduler.next())
    for (const outcome of scheduler.commit(plan, await executable.run(plan.batch)))
      if (outcome.kind === 'logits') logits.set(outcome.data, outcome.position * vocabSize);
  return logits;
}
