/**
 * One whole pass that generates, as a graph with what it waits for between devices, against the same steps one by one: the same
 * launches, so about the same logits. A pass that does not end in time is given up, its GPU with it.
 */
import { similarity } from '../../ops/bound.ts';
import type { Batch, PassResult } from '../../program/batch.ts';
import type { Program } from '../../program/program.ts';
import type { Executable } from '../backend.ts';
import type { Limits } from '../check-batch.ts';
import { ALARMS } from '../compare.ts';

export interface WholePassOptions {
  readonly executable: Executable;
  readonly limits: Omit<Limits, 'pages'>;
  /** How long it may take beside several times what its steps take one by one. Default 20. */
  readonly seconds?: number;
  readonly signal?: AbortSignal;
}

/** What is wrong, a sentence, or undefined. */
export async function wholePassFailure(options: WholePassOptions): Promise<string | undefined> {
  const { executable, signal } = options;
  const { program } = executable;
  const batch = batchOf(program, { ...options.limits, pages: executable.pages });
  try {
    const started = performance.now();
    const expected = await inSteps(executable, batch, signal); // weights that were on a disk are in memory now
    const limit = (options.seconds ?? SECONDS) + (TIMES * (performance.now() - started)) / 1000;
    // The first makes the graph, the second runs it again.
    for (const which of ['a pass', 'the same pass again']) {
      const actual = await withinTime(executable, batch, limit);
      signal?.throwIfAborted();
      if (actual === undefined) return `${which} did not end within ${limit.toFixed(1)} s`;
      const { nmse } = similarity(actual.logits!, expected);
      if (!(nmse <= ALARMS.bf16))
        return `${which} ends in other logits than its steps one by one, NMSE ${nmse.toPrecision(3)}`;
    }
    return undefined;
  } catch (error) {
    if (signal?.aborted) throw error;
    return (error instanceof Error ? error.message : String(error)).replace(/^\[\w+\] /, '');
  }
}

const SECONDS = 20;
const TIMES = 5;

/** undefined where it was given up. */
async function withinTime(executable: Executable, batch: Batch, seconds: number): Promise<PassResult | undefined> {
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    for (const { slot } of batch.sequences) executable.cancel(slot);
  }, seconds * 1000);
  try {
    const result = await executable.run(batch);
    return late ? undefined : result;
  } finally {
    clearTimeout(timer);
  }
}

async function inSteps(executable: Executable, batch: Batch, signal?: AbortSignal): Promise<Float32Array> {
  const stepper = await executable.start(batch);
  try {
    for (const index of executable.program.steps.keys()) {
      signal?.throwIfAborted();
      await stepper.step(index);
    }
    return (await stepper.read(executable.program.logits)) as Float32Array;
  } finally {
    await stepper.finish().catch(() => {}); // what went wrong first is told
  }
}

/** A row each of two sequences, where there is room for two. */
function batchOf({ vocabSize }: Program, { pages, maxRows, maxOutputs }: Limits): Batch {
  const count = Math.min(2, pages, maxRows, maxOutputs);
  const rows = Array.from({ length: count }, (_, i) => i);
  return {
    tokens: Int32Array.from(rows, (i) => Math.floor(((i + 1) * vocabSize) / 3)),
    sequences: rows.map((i) => ({ slot: i, firstRow: i, rows: 1, firstPosition: 0, pages: Int32Array.of(i) })),
    outputs: rows.map((row) => ({ row, sampling: null })),
    wantLogits: true,
  };
}
