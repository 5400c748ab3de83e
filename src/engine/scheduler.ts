/**
 * Which rows the next pass computes: continuous batching, chunked prefill, preemption when pages run out.
 * Pure and synchronous: `next()` plans one pass, `commit` or `fail` ends it; the engine loop runs it in between.
 *
 *     waiting ──admit──▶ running ──commit──▶ done
 *        ▲                  │ pages run out: the last in order is preempted, its pages are released,
 *        └──────────────────┘ its tokens (prompt and drawn) are computed again later
 *
 * First is who has the higher priority, then who is older. Promises: no page has two writers; none is lost; the first
 * sequence always gets on; between running sequences the one that waited longest for rows comes first; decode rows go before
 * prefill rows, and an eighth of the rows stays for prefill. Full pages are shared by prefix (prefix-cache.ts); pages that
 * only the cache owns count as free.
 */
import { TandemError } from '../errors.ts';
import type { PassResult } from '../program/batch.ts';
import { PAGE_TOKENS } from '../program/program.ts';
import { assemble, type Choice, type Plan, type Work } from './batch.ts';
import type { ChunkSize } from './chunk-size.ts';
import { type PagePool, pagesFor } from './kv-cache.ts';
import type { PrefixCache, PrefixStats } from './prefix-cache.ts';
import type { Sequence } from './sequence.ts';

export interface SchedulerOptions {
  readonly pool: PagePool;
  /** Most rows of a pass, ≥ 2. */
  readonly maxRows: number;
  /** Most output rows of a pass, ≥ 2. */
  readonly maxOutputs: number;
  /** Most sequences that run at once, [1, 4096]. */
  readonly maxSequences: number;
  readonly chunk: ChunkSize;
  /** Of passes in which nobody decodes and so nobody waits for a next token; default: `chunk`. */
  readonly soloChunk?: ChunkSize;
  /** In such a pass: rows below which it wastes its time, by its first position; default: none. */
  readonly worthwhileRows?: (position: number) => number;
  /** Absent: nothing is shared. */
  readonly prefixes?: PrefixCache;
}

/** What a pass did for one sequence. */
export type Outcome = { readonly sequence: Sequence } & (
  | { readonly kind: 'prefill' }
  | {
      readonly kind: 'token';
      readonly token: number;
      readonly logprob: number;
      readonly top: { readonly tokens: Int32Array; readonly logprobs: Float32Array };
    }
  | { readonly kind: 'logits'; readonly position: number; readonly data: Float32Array }
  | { readonly kind: 'failed'; readonly error: TandemError }
);

export interface SchedulerStats {
  running: number;
  waiting: number;
  /** Free, or only remembered. */
  freePages: number;
  totalPages: number;
  preemptions: number;
  passes: number;
  /** Rows computed, recomputed ones included. */
  rows: number;
  chunkRows: number;
  prefixes?: PrefixStats;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #pool: PagePool;
  readonly #prefixes: PrefixCache | undefined;
  /** In order (`before`), both. */
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #slots: number[] = [];
  /** Removed while their pass was in flight: pages and slot are kept until it ends. */
  readonly #leaving = new Set<Sequence>();
  /** Of a pass that failed: which one made it fail is found by running each alone. */
  readonly #suspects = new WeakSet<Sequence>();
  #inFlight: Plan | undefined;
  #arrivals = 0;
  #passes = 0;
  #rows = 0;
  #preemptions = 0;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#pool = options.pool;
    this.#prefixes = options.prefixes;
    const check = (field: 'maxRows' | 'maxOutputs' | 'maxSequences', low: number, high: number) => {
      const value = options[field];
      if (!Number.isInteger(value) || value < low || value > high)
        throw new TandemError('REQUEST_INVALID', {
          room: 'engine',
          rule: `${field} is an integer in [${low}, ${high}]`,
          given: `got ${value}`,
        });
    };
    check('maxRows', 2, 1 << 20);
    check('maxOutputs', 2, 1 << 20);
    check('maxSequences', 1, 4096);
    for (let slot = options.maxSequences - 1; slot >= 0; slot--) this.#slots.push(slot);
  }

  get stats(): SchedulerStats {
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      freePages: this.#pool.free + (this.#prefixes?.reclaimable ?? 0),
      totalPages: this.#pool.total,
      preemptions: this.#preemptions,
      passes: this.#passes,
      rows: this.#rows,
      chunkRows: this.#options.chunk.rows,
      prefixes: this.#prefixes?.stats,
    };
  }

  /** Running ones, then waiting ones, oldest first. */
  sequences(): readonly Sequence[] {
    return [...this.#running, ...this.#waiting];
  }

  /** Queues a new sequence. CONTEXT_OVERFLOW when all pages together could not hold it. */
  add(sequence: Sequence): void {
    const needed = pagesFor(sequence.maxComputed);
    if (needed > this.#pool.total)
      throw new TandemError('CONTEXT_OVERFLOW', {
        room: 'engine',
        rule: 'a sequence fits the KV cache when nothing else runs',
        given: `${sequence.maxComputed} tokens need ${needed} pages of ${PAGE_TOKENS}, there are ${this.#pool.total}`,
        fix: 'shorten the prompt, lower maxTokens, or load with a larger KV budget',
      });
    sequence.order = this.#arrivals++;
    sequence.state = 'waiting';
    insertInOrder(this.#waiting, sequence);
  }

  /**
   * Takes a sequence out, whatever it is doing. True when its rows are in the pass in flight: then its pages stay
   * until that pass ends, and the caller should cancel `sequence.slot` to end them sooner.
   */
  remove(sequence: Sequence): boolean {
    if (sequence.state === 'waiting') {
      take(this.#waiting, sequence);
      sequence.state = 'done';
    } else if (sequence.state === 'running') {
      if (this.#inFlight?.work.some((work) => work.sequence === sequence)) {
        this.#leaving.add(sequence);
        return true;
      }
      this.#retire(sequence);
    }
    return false;
  }

  /** The next pass, or undefined when there is nothing to do, or nothing but wait for masks. */
  next(): Plan | undefined {
    if (this.#inFlight)
      throw new TandemError('REQUEST_INVALID', { room: 'engine', rule: 'one pass is in flight at a time' });
    this.#admit();
    if (this.#running.length === 0) return undefined;
    // The oldest sequence can take pages from all others, so a round without it in it stalls at worst.
    const stalled = new Set<Sequence>();
    let chosen: Choice[] = [];
    while (chosen.length === 0) {
      const choices = this.#choose(stalled);
      if (choices.length === 0) return undefined;
      chosen = this.#reserve(choices, stalled);
    }
    this.#passes++;
    for (const { sequence } of chosen) sequence.lastPass = this.#passes;
    return (this.#inFlight = assemble(chosen));
  }

  /** Takes over the result of the pass in flight. */
  commit(plan: Plan, result: PassResult): Outcome[] {
    this.#end(plan);
    this.#rows += plan.batch.tokens.length;
    const solo = plan.prefillRows === plan.batch.tokens.length;
    this.#chunkOf(solo).measured(plan.prefillRows, result.milliseconds);
    const outcomes: Outcome[] = [];
    for (const work of plan.work) {
      const { sequence } = work;
      this.#suspects.delete(sequence);
      if (this.#leaving.delete(sequence)) {
        this.#retire(sequence);
        continue;
      }
      const outcome = advance(work, result);
      outcomes.push(outcome);
      if (outcome.kind !== 'failed') this.#prefixes?.learn(sequence);
      if (sequence.finish !== undefined || outcome.kind === 'failed') this.#retire(sequence);
    }
    return outcomes;
  }

  /**
   * The pass in flight failed. A sequence that was alone in it ends here and is returned. Of several one may be at fault: each
   * goes on where it was, alone in its next pass.
   */
  fail(plan: Plan): Sequence[] {
    this.#end(plan);
    const failed: Sequence[] = [];
    for (const { sequence } of plan.work) {
      const leaves = this.#leaving.delete(sequence);
      if (!leaves && plan.work.length > 1) this.#suspects.add(sequence);
      else {
        if (!leaves) failed.push(sequence);
        this.#retire(sequence);
      }
    }
    return failed;
  }

  /** Throws unless every page has the owners it should have. For tests. */
  check(): void {
    const lists = [...this.#running, ...this.#waiting].map((sequence) => sequence.pages);
    this.#pool.check(this.#prefixes ? [...lists, this.#prefixes.pages()] : lists);
  }

  #end(plan: Plan): void {
    if (this.#inFlight !== plan)
      throw new TandemError('REQUEST_INVALID', {
        room: 'engine',
        rule: 'a pass ends once, with the plan it began with',
      });
    this.#inFlight = undefined;
  }

  /**
   * In order, never around one that does not fit. A sequence gets the pages of all its known tokens at once, so a
   * prefill once begun is not short of pages; beside others one page for each of them that may grow stays free, else the
   * newcomer would be preempted within 64 tokens.
   */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#running.length < this.#options.maxSequences && this.#slots.length > 0) {
      const sequence = this.#waiting[0];
      // The last known token is always computed, and every token whose logits are wanted.
      const known = sequence.tokens(0, Math.min(sequence.length - 1, sequence.outputFrom));
      const path = this.#prefixes?.find(known) ?? [];
      const held = path.filter(({ page }) => this.#pool.owners(page) === 1).length;
      const needed = pagesFor(sequence.length) - path.length;
      const available = () => this.#pool.free + (this.#prefixes?.reclaimable ?? 0) - held;
      const spare = this.#running.filter((other) => pagesFor(other.maxComputed) > other.pages.length).length;
      if (available() < needed + spare) this.#prefixes?.onShortage?.();
      if (available() < needed + spare) return;
      this.#waiting.shift();
      this.#prefixes?.adopt(sequence, path);
      if (sequence.preemptions === 0) sequence.cachedLen = sequence.computedLen;
      for (let i = 0; i < needed; i++) sequence.addPage(this.#allocate());
      sequence.slot = this.#slots.pop()!;
      sequence.state = 'running';
      sequence.lastPass = this.#passes;
      insertInOrder(this.#running, sequence);
    }
  }

  /** Rows for each sequence by the limits of a pass alone; pages are not looked at. */
  #choose(stalled: ReadonlySet<Sequence>): Choice[] {
    const { maxRows, maxOutputs, soloChunk, worthwhileRows } = this.#options;
    const ready = this.#running
      .filter((sequence) => !stalled.has(sequence))
      .sort((a, b) => a.lastPass - b.lastPass || a.order - b.order);
    const suspect = ready.find((sequence) => this.#suspects.has(sequence) && canRun(sequence));
    if (suspect) ready.splice(0, ready.length, suspect);
    const decoding = ready.filter((sequence) => sequence.pendingLen === 1 && canRun(sequence));
    const prefilling = ready.filter((sequence) => sequence.pendingLen > 1);
    const kept = prefilling.length > 0 ? { rows: Math.max(1, maxRows >> 3), outputs: 1 } : { rows: 0, outputs: 0 };
    const choices: Choice[] = decoding
      .slice(0, Math.min(maxRows - kept.rows, maxOutputs - kept.outputs))
      .map((sequence) => ({ sequence, rows: 1 }));
    const solo = choices.length === 0;
    const worthwhile = solo && prefilling.length > 0 ? (worthwhileRows?.(prefilling[0].computedLen) ?? 0) : 0;
    let rowsLeft = Math.min(maxRows - choices.length, this.#chunkOf(solo).rowsFor(worthwhile));
    // Weights are read once a pass: two halves cost less than a large piece and a small one.
    if (soloChunk && solo && prefilling.length === 1) {
      const { pendingLen } = prefilling[0];
      rowsLeft = Math.ceil(pendingLen / Math.ceil(pendingLen / rowsLeft));
    }
    let outputsLeft = maxOutputs - choices.length;
    for (const sequence of prefilling) {
      const silent = Math.max(0, sequence.outputFrom - sequence.computedLen);
      const rows = Math.min(rowsLeft, sequence.pendingLen, silent + (sequence.drawable ? outputsLeft : 0));
      if (rows === 0) continue;
      choices.push({ sequence, rows });
      rowsLeft -= rows;
      outputsLeft -= sequence.outputsFor(rows);
    }
    return choices;
  }

  #chunkOf(solo: boolean): ChunkSize {
    const { chunk, soloChunk = chunk } = this.#options;
    return solo ? soloChunk : chunk;
  }

  /** Gives pages to the choices, in order; later sequences are preempted for earlier ones, never the reverse. */
  #reserve(choices: readonly Choice[], stalled: Set<Sequence>): Choice[] {
    const inOrder = [...choices].sort((a, b) => before(a.sequence, b.sequence));
    for (const { sequence, rows } of inOrder) {
      if (sequence.state !== 'running') continue;
      const needed = pagesFor(sequence.computedLen + rows) - sequence.pages.length;
      while (this.#pool.free < needed) {
        if (this.#prefixes?.evict()) continue;
        const last = this.#running[this.#running.length - 1];
        if (last === sequence) break;
        this.#preempt(last);
      }
      if (this.#pool.free < needed) stalled.add(sequence);
      else for (let i = 0; i < needed; i++) sequence.addPage(this.#pool.allocate());
    }
    return choices.filter(({ sequence }) => sequence.state === 'running' && !stalled.has(sequence));
  }

  /** A page; the cache gives one up where none is free. The caller has counted. */
  #allocate(): number {
    if (this.#pool.free === 0) this.#prefixes?.evict();
    return this.#pool.allocate();
  }

  #preempt(sequence: Sequence): void {
    this.#retire(sequence);
    sequence.state = 'waiting';
    sequence.preemptions++;
    this.#preemptions++;
    insertInOrder(this.#waiting, sequence);
  }

  /** Ends running: pages and slot go back. */
  #retire(sequence: Sequence): void {
    take(this.#running, sequence);
    for (const page of sequence.takePages()) this.#pool.release(page);
    this.#slots.push(sequence.slot);
    sequence.slot = -1;
    sequence.state = 'done';
  }
}

/** False while the mask of its next draw is being made. */
function canRun({ pendingLen, drawable }: Sequence): boolean {
  return pendingLen > 1 || drawable;
}

/** Applies a pass to one sequence. */
function advance({ sequence, rows, firstOutput, outputs }: Work, result: PassResult): Outcome {
  sequence.computedLen += rows;
  if (outputs === 0) return { sequence, kind: 'prefill' };
  if (sequence.sampler === null) {
    const columns = result.logits!.length / result.tokens.length;
    const position = sequence.computedLen - outputs;
    sequence.delivered(sequence.computedLen);
    const data = result.logits!.subarray(firstOutput * columns, (firstOutput + outputs) * columns);
    return { sequence, kind: 'logits', position, data };
  }
  const token = result.tokens[firstOutput];
  if (token < 0)
    return {
      sequence,
      kind: 'failed',
      error: new TandemError('NATIVE_FAILED', {
        room: 'engine',
        rule: 'every live sequence draws a token',
        given: `none at position ${sequence.length}: the logits hold no finite number`,
        fix: 'check the weights (`tandem compare` names the first step that goes wrong)',
      }),
    };
  try {
    sequence.append(token);
  } catch (error) {
    return { sequence, kind: 'failed', error: error as TandemError };
  }
  return { sequence, kind: 'token', token, logprob: result.logprobs[firstOutput], top: result.top[firstOutput] };
}

function take(list: Sequence[], sequence: Sequence): void {
  const index = list.indexOf(sequence);
  if (index >= 0) list.splice(index, 1);
}

/** Negative where `a` goes first. */
function before(a: Sequence, b: Sequence): number {
  return b.priority - a.priority || a.order - b.order;
}

function insertInOrder(list: Sequence[], sequence: Sequence): void {
  let at = list.length;
  while (at > 0 && before(sequence, list[at - 1]) < 0) at--;
  list.splice(at, 0, sequence);
}
