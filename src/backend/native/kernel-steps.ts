/**
 * Steps that this process computes in the middle of a native pass: those whose rule names a registered kernel or the
 * reference. Their values are fetched and put back; weights are read from the checkpoint; of the cache the pages that the
 * sequences use. Everything else of the pass stays native.
 */
import { TandemError } from '../../errors.ts';
import type { Checkpoint } from '../../formats/checkpoint.ts';
import { E4M3_VALUES, f32BitsToE4m3 } from '../../formats/quants/half.ts';
import { kernelRun } from '../../ops/kernel.ts';
import { type Batch, phaseOf } from '../../program/batch.ts';
import { executionOf, type KvLayout, PAGE_TOKENS, PHASES, type Phase, type Program } from '../../program/program.ts';
import { ReferenceKv } from '../reference-kv.ts';
import { ReferencePass } from '../reference-pass.ts';
import { ReferenceWeights } from '../reference-weights.ts';
import type { NativeModel } from './binding.ts';

/** Bytes of decoded weights to keep. */
const WEIGHT_LIMIT = 2 ** 30;

export class KernelSteps {
  readonly #program: Program;
  readonly #weights: ReferenceWeights;
  readonly #model: NativeModel;
  readonly #pages: number;
  readonly #indices: Readonly<Record<Phase, readonly number[]>>;

  /** PLACEMENT_IMPOSSIBLE where a kernel that is named is not there. */
  constructor(program: Program, checkpoint: Checkpoint, model: NativeModel, pages: number) {
    this.#program = program;
    this.#model = model;
    this.#pages = pages;
    this.#weights = new ReferenceWeights(program, checkpoint, WEIGHT_LIMIT);
    const [prefill, decode] = PHASES.map((phase) =>
      program.steps.flatMap((step, index) => {
        const kernel = executionOf(step, phase)?.kernel;
        if (kernel === undefined) return [];
        kernelRun(step.op, kernel);
        return [index];
      }),
    );
    this.#indices = { prefill, decode };
  }

  /** Names of the kernels with the steps that each computes, for people; '' where there are none. */
  get description(): string {
    const counts = new Map<string, number>();
    for (const step of this.#program.steps)
      for (const kernel of new Set(PHASES.map((phase) => executionOf(step, phase)?.kernel)))
        if (kernel !== undefined) counts.set(kernel, (counts.get(kernel) ?? 0) + 1);
    return [...counts].map(([kernel, count]) => `${kernel} (${count} steps)`).join(', ');
  }

  /** Indices of the steps of a pass that are computed here, ascending. */
  of(batch: Batch): readonly number[] {
    return this.#indices[phaseOf(batch)];
  }

  /** A pass that native has begun. */
  begin(batch: Batch, signal?: AbortSignal): KernelPass {
    const kv = new ReferenceKv(this.#program.kv, this.#pages);
    const options = { trackMagnitudes: false, imitateF16Cache: false, signal };
    const pass = new ReferencePass(this.#program, this.#weights, kv, batch, options);
    return new KernelPass(this.#program, this.#model, pass, kv, signal);
  }

  dispose(): void {
    this.#weights.clear();
  }
}

export class KernelPass {
  readonly #program: Program;
  readonly #model: NativeModel;
  readonly #pass: ReferencePass;
  readonly #kv: ReferenceKv;
  readonly #signal: AbortSignal | undefined;

  constructor(program: Program, model: NativeModel, pass: ReferencePass, kv: ReferenceKv, signal?: AbortSignal) {
    this.#program = program;
    this.#model = model;
    this.#pass = pass;
    this.#kv = kv;
    this.#signal = signal;
  }

  /**
   * Computes a step. Throws what its kernel throws. When nobody wants the pass any more it returns at once, and a kernel that
   * goes on writes into memory that nobody reads.
   */
  async compute(index: number): Promise<void> {
    const step = this.#program.steps[index];
    const values = step.inputs.flatMap((input) => (input?.kind === 'value' ? [input.value] : []));
    for (const id of new Set(values)) this.#pass.set(id, await this.#model.read(id));
    const pages = step.attributes.cache === undefined ? [] : this.#pagesUsed();
    for (const page of pages) readPage(this.#kv.layout, await this.#model.readPage(page), this.#kv.page(page));
    await Promise.race([this.#pass.step(index), abortOf(this.#signal)]);
    if (this.#signal?.aborted) return;
    if (step.outputs.length === 0)
      for (const page of pages) await this.#model.writePage(page, pageBytes(this.#kv.layout, this.#kv.page(page)));
    for (const id of step.outputs) {
      const data = this.#pass.value(id);
      if (data === undefined)
        throw new TandemError('REQUEST_INVALID', {
          room: 'backend',
          rule: 'a kernel fills every output of its step',
          given: `${executionOf(step, phaseOf(this.#pass.batch))?.kernel} left out ${this.#program.values[id].name}`,
          fix: 'write context.output(i).data',
        });
      await this.#model.write(id, data);
    }
    for (const id of [...values, ...step.outputs]) this.#pass.drop(id);
  }

  /** Pages that hold the positions of the sequences, after this pass. */
  #pagesUsed(): number[] {
    const used = this.#pass.batch.sequences.flatMap(({ pages, firstPosition, rows }) => [
      ...pages.subarray(0, Math.ceil((firstPosition + rows) / PAGE_TOKENS)),
    ]);
    return [...new Set(used)];
  }
}

/** Settles when the signal is aborted. */
function abortOf(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) resolve();
    signal?.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** The bytes of a page as native has them, as f32; bf16 is the upper half of one, e4m3 a table. */
function readPage({ type }: KvLayout, bytes: Uint8Array, out: Float32Array): void {
  if (type === 'f32') {
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
    return;
  }
  if (type === 'e4m3') {
    for (let i = 0; i < out.length; i++) out[i] = E4M3_VALUES[bytes[i]];
    return;
  }
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, out.length);
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) bits[i] = halves[i] << 16;
}

/** The same, back: values are of the cache's type already. */
function pageBytes({ type }: KvLayout, page: Float32Array): Uint8Array {
  if (type === 'f32') return new Uint8Array(page.buffer, page.byteOffset, page.byteLength).slice();
  const bits = new Uint32Array(page.buffer, page.byteOffset, page.length);
  if (type === 'e4m3') return Uint8Array.from(bits, f32BitsToE4m3);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}
