/**
 * The native backend: hands an encoded Program and the places of its weights to the addon, and a batch per pass. It holds
 * no tensors; what crosses are bytes of a batch and the arrays of a result.
 */
import { ERROR_CODES, type ErrorCode, TandemError } from '../../errors.ts';
import type { Checkpoint } from '../../formats/checkpoint.ts';
import type { Batch, PassResult } from '../../program/batch.ts';
import { planBuffers } from '../../program/buffers.ts';
import { encodeBatch, encodeProgram, type TensorLocation } from '../../program/encode.ts';
import type { Program } from '../../program/program.ts';
import { HOST } from '../../program/validate-devices.ts';
import type { Backend, Executable, ExpertVisits, PrepareOptions, SharingCounts, Stepper } from '../backend.ts';
import { checkBatch } from '../check-batch.ts';
import { Turns } from '../turns.ts';
import type { Isa, NativeBinding, NativeModel, NativeModelOptions, NativePassResult } from './binding.ts';
import { gpuKernels } from './gpus.ts';
import { KernelSteps } from './kernel-steps.ts';
import { loadNative } from './load.ts';

/** Time per step since load. */
export interface StepTiming {
  readonly step: number;
  readonly calls: number;
  readonly microseconds: number;
}

export interface NativeExecutable extends Executable {
  timings(): readonly StepTiming[];
}

export interface NativeBackend extends Backend {
  prepare(program: Program, checkpoint: Checkpoint, options: PrepareOptions): Promise<NativeExecutable>;
}

/** NATIVE_UNAVAILABLE where the addon cannot be had. */
export function nativeBackend(binding: NativeBinding = loadNative()): NativeBackend {
  return {
    name: 'native',
    async prepare(program, checkpoint, options) {
      stopIfAborted(options.signal);
      const { files, locate } = await gatherFiles(program, checkpoint);
      const cancel = new Int32Array(1);
      const abort = () => {
        cancel[0] = 1;
      };
      options.signal?.addEventListener('abort', abort, { once: true });
      try {
        stopIfAborted(options.signal);
        const model = await binding.createModel(
          {
            program: encodeProgram(program, planBuffers(program), locate),
            files,
            pages: options.pages,
            maxRows: options.maxRows,
            maxOutputs: options.maxOutputs,
            threads: options.threads ?? 0,
            isa: (options.isa ?? '') as Isa | '',
            load: options.load ?? 'auto',
            memory: options.memory ?? 0,
            ...kernelsFor(program),
            ...sharingFor(options),
          },
          options.onProgress ?? (() => {}),
          cancel,
        );
        return await executorOf(program, checkpoint, model, options);
      } catch (error) {
        throw typed(error);
      } finally {
        options.signal?.removeEventListener('abort', abort);
      }
    },
  };
}

/** Kernels of GPUs, where a step is placed on one. */
function kernelsFor({ steps }: Program): Pick<NativeModelOptions, 'kernels' | 'kernelsVersion'> {
  if (steps.every(({ placement }) => (placement?.device ?? HOST) === HOST)) return {};
  const { path, version } = gpuKernels();
  return { kernels: path, kernelsVersion: version };
}

function sharingFor({ sharing: { hot, stream } = {} }: PrepareOptions): Partial<NativeModelOptions> {
  return {
    ...(hot && { hotSlots: hot.slots, ...(hot.payBack !== undefined && { hotPayBack: hot.payBack }) }),
    ...(stream && { streamFrom: stream.from, streamMemory: stream.memory }),
  };
}

/** The model is let go where a kernel that a step names is not there. */
async function executorOf(
  program: Program,
  checkpoint: Checkpoint,
  model: NativeModel,
  options: PrepareOptions,
): Promise<NativeExecutor> {
  try {
    return new NativeExecutor(program, model, options, new KernelSteps(program, checkpoint, model, options.pages));
  } catch (error) {
    await model.dispose();
    throw error;
  }
}

function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new TandemError('ABORTED', { room: 'native', rule: 'loading stops when its signal says so' });
}

/** The files that hold the Program's weights (by path, or whole where they have none) and where each tensor is. */
async function gatherFiles(program: Program, checkpoint: Checkpoint) {
  const files: (string | Uint8Array)[] = [];
  const numberOf = new Map<number, number>();
  const locations = new Map<string, TensorLocation>();
  for (const weight of program.weights) {
    for (const name of [...weight.parts, ...(weight.scales ?? [])]) {
      if (locations.has(name)) continue;
      const tensor = checkpoint.tensors.get(name);
      if (tensor === undefined)
        throw new TandemError('MODEL_INVALID', {
          room: 'native',
          rule: 'the checkpoint has every tensor of the Program',
          given: `${checkpoint.name} has no ${name}`,
        });
      let file = numberOf.get(tensor.file);
      if (file === undefined) {
        const source = checkpoint.files[tensor.file];
        file = files.push(source.path ?? (await source.read(0, source.size))) - 1;
        numberOf.set(tensor.file, file);
      }
      locations.set(name, { file, offset: tensor.offset, bytes: tensor.bytes });
    }
  }
  return { files, locate: (name: string) => locations.get(name)! };
}

/** Native errors carry `code` and a finished message; from here on they are like all others. */
function typed(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof TandemError) return error;
  const code = (error as { code?: string }).code;
  if (code === undefined || !(code in ERROR_CODES)) return error;
  const rule = error.message.replace(/^\[native\] /, '');
  return new TandemError(code as ErrorCode, { room: 'native', rule, cause: error });
}

async function native<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw typed(error);
  }
}

function toPassResult(batch: Batch, result: NativePassResult, dropped: ReadonlySet<number>): PassResult {
  const { tokens, logprobs, maxTop, topTokens, topLogprobs, logits, milliseconds } = result;
  for (const { slot, firstRow, rows } of batch.sequences) {
    if (!dropped.has(slot)) continue;
    batch.outputs.forEach(({ row }, o) => {
      if (row >= firstRow && row < firstRow + rows) tokens[o] = -1;
    });
  }
  const top = batch.outputs.map(({ sampling }, o) => {
    const start = o * maxTop;
    const asked = tokens[o] < 0 ? 0 : (sampling?.topLogprobs ?? 0);
    // Fewer where fewer logits are finite: the rest is padding.
    const padding = topTokens.subarray(start, start + asked).indexOf(-1);
    const count = padding < 0 ? asked : padding;
    return { tokens: topTokens.slice(start, start + count), logprobs: topLogprobs.slice(start, start + count) };
  });
  return { tokens, logprobs, top, ...(logits ? { logits } : {}), milliseconds };
}

class NativeExecutor implements NativeExecutable {
  readonly program: Program;
  readonly pages: number;
  readonly description: Readonly<Record<string, string | number>>;
  readonly #model: NativeModel;
  readonly #limits: PrepareOptions;
  readonly #kernels: KernelSteps;
  readonly #turns = new Turns();
  /** Slots of the pass in flight that somebody waits for, where steps of it are computed here. */
  #wanted: { readonly slots: Set<number>; readonly abandon: AbortController } | undefined;
  /** Passes that wait for their turn, and the slots cancelled meanwhile: native hears of them when the pass begins. */
  #waiting = 0;
  readonly #early = new Set<number>();
  #disposal: Promise<void> | undefined;

  constructor(program: Program, model: NativeModel, limits: PrepareOptions, kernels: KernelSteps) {
    this.program = program;
    this.#kernels = kernels;
    this.pages = limits.pages;
    this.#model = model;
    this.#limits = limits;
    const {
      weightBytes,
      kvBytes,
      bufferBytes,
      splitBytes,
      mappedBytes,
      hugeBytes,
      cacheBytes,
      diskBytes,
      loadSeconds,
      gpus,
      gpuWeightBytes,
      gpuKvBytes,
      gpuBufferBytes,
      hotExperts,
      streamedPrefill,
      ...rest
    } = model.describe();
    this.description = {
      backend: 'native',
      ...rest,
      'weight bytes': weightBytes,
      'split bytes': splitBytes,
      'kv bytes': kvBytes,
      'buffer bytes': bufferBytes,
      'mapped bytes': mappedBytes,
      'huge page bytes': hugeBytes,
      'bytes from cache': cacheBytes,
      'bytes from disk': diskBytes,
      'load seconds': loadSeconds,
      ...(gpus
        ? {
            gpus,
            'gpu weight bytes': gpuWeightBytes,
            'gpu kv bytes': gpuKvBytes,
            'gpu buffer bytes': gpuBufferBytes,
            ...(hotExperts ? { 'hot experts': hotExperts } : {}),
            ...(streamedPrefill ? { 'streamed prefill': streamedPrefill } : {}),
          }
        : {}),
      ...(kernels.description === '' ? {} : { kernels: kernels.description }),
    };
  }

  async run(batch: Batch): Promise<PassResult> {
    const end = await this.#turn(batch);
    try {
      const own = this.#kernels.of(batch);
      if (own.length > 0) return await this.#runWithKernels(batch, own);
      const result = this.#model.run(encodeBatch(batch));
      const dropped = this.#tellEarly();
      return toPassResult(batch, await native(result), dropped);
    } finally {
      end();
    }
  }

  cancel(slot: number): void {
    if (this.#disposal) return;
    this.#model.cancel(slot);
    if (this.#waiting > 0) this.#early.add(slot);
    if (this.#wanted?.slots.delete(slot) && this.#wanted.slots.size === 0) this.#wanted.abandon.abort();
  }

  /** Native in ranges, the steps of `own` between them here. What a kernel throws ends the pass. */
  async #runWithKernels(batch: Batch, own: readonly number[]): Promise<PassResult> {
    const model = this.#model;
    const abandon = new AbortController();
    this.#wanted = { slots: new Set(batch.sequences.map(({ slot }) => slot)), abandon };
    try {
      const begun = model.begin(encodeBatch(batch));
      const dropped = this.#tellEarly();
      await native(begun);
      const pass = this.#kernels.begin(batch, abandon.signal);
      let done = 0;
      for (const index of own) {
        if (index > done) await native(model.steps(done, index));
        if (abandon.signal.aborted || this.#disposal) break;
        await native(pass.compute(index));
        done = index + 1;
      }
      if (!abandon.signal.aborted) await native(model.steps(done, this.program.steps.length));
      return toPassResult(batch, await native(model.end()), dropped);
    } catch (error) {
      await model.end().catch(() => {}); // what went wrong first is told
      throw error;
    } finally {
      this.#wanted = undefined;
    }
  }

  async start(batch: Batch): Promise<Stepper> {
    const end = await this.#turn(batch);
    const model = this.#model;
    let dropped: ReadonlySet<number>;
    try {
      const begun = model.begin(encodeBatch(batch));
      dropped = this.#tellEarly();
      await native(begun);
    } catch (error) {
      end();
      throw error;
    }
    const during = this.#turns.hold(end);
    const own = new Set(this.#kernels.of(batch));
    const pass = this.#kernels.begin(batch);
    return {
      step: (index) => during(() => native(own.has(index) ? pass.compute(index) : model.step(index))),
      read: (value) => during(() => native(model.read(value))),
      write: (value, data) => during(() => native(model.write(value, data))),
      finish: () => during(async () => toPassResult(batch, await native(model.end()), dropped), true),
    };
  }

  async readPage(page: number): Promise<Uint8Array> {
    const end = await this.#turns.take();
    return native(this.#model.readPage(page)).finally(end);
  }

  async writePage(page: number, bytes: Uint8Array): Promise<void> {
    const end = await this.#turns.take();
    return native(this.#model.writePage(page, bytes)).finally(end);
  }

  expertVisits(): ExpertVisits {
    return this.#model.expertVisits();
  }

  sharingCounts(): SharingCounts | undefined {
    const shares = 'hot experts' in this.description || 'streamed prefill' in this.description;
    return shares && !this.#disposal ? this.#model.shareCounts() : undefined;
  }

  timings(): readonly StepTiming[] {
    return this.#model.timings();
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#turns.close().then(() => {
      this.#kernels.dispose();
      return this.#model.dispose();
    });
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #turn(batch: Batch): Promise<() => void> {
    checkBatch(batch, this.program, this.#limits);
    this.#waiting++;
    try {
      return await this.#turns.take();
    } finally {
      this.#waiting--;
    }
  }

  /** Cancels what was cancelled before the pass began; the slots, since a short pass may be over before it hears. */
  #tellEarly(): ReadonlySet<number> {
    const slots = new Set(this.#early);
    for (const slot of slots) this.#model.cancel(slot);
    if (this.#waiting === 0) this.#early.clear();
    return slots;
  }
}
