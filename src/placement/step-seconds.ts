/**
 * What each step of a placed Program takes on its device, by parts: the processor as its kernels were measured (costs.ts), GPUs by
 * their data sheets. What runs beside what is not its business (timeline.ts).
 */

import { valueDevices } from '../program/buffers.ts';
import { executionOf, type Phase, type Program, type Step } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import {
  attentionDecodeSeconds,
  attentionPairs,
  attentionPrefillSeconds,
  bytesTouched,
  matrixSeconds,
  smallSeconds,
} from './costs.ts';
import { sharedLayers } from './expert-sharing.ts';
import { streamedSeconds } from './physics.ts';
import { type GpuProfile, type MachineProfile, usedGpus } from './profile.ts';
import {
  type AttentionWork,
  attentionOfStep,
  columnsWritten,
  isSmall,
  type MatrixWork,
  matricesOfStep,
  weightsPerToken,
} from './sizes.ts';

/**
 * What a GPU reaches of its data sheet: of its bandwidth, of its bf16 operations on tensor cores and without them; seconds of a
 * hand-over to the processor and back, and of a step with its launch. Assumptions of 2026-11-23, not measured.
 */
export const GPU = { read: 0.75, bf16: 0.4, plain: 0.05, handover: 40e-6, step: 4e-6 };

/** Weights, or products of attention, that the definition of an op multiplies a second: plain TypeScript on one core. */
const REFERENCE = 6e7;

/** The disk's reads are random, one expert at a time: about as fast as sequential ones, since an expert is megabytes. */
const NO_DISK = 0.5e9;

/** Rows of a pass: one of each of so many sequences at a position, or those of one sequence from a position on. */
export interface PassRows {
  readonly phase: Phase;
  readonly rows: number;
  /** Position of the first row of each sequence. */
  readonly first: number;
}

/** Seconds by part, in the words of a plan. */
export type Parts = Readonly<Record<string, number>>;

export interface StepSeconds {
  readonly parts: Parts;
  /** Its experts went through the GPU. */
  readonly streamed?: boolean;
}

/** The part that hand-overs between the processor and GPUs are told as. */
export const HANDOVER = 'hand-over to the GPU';

/** What a step is made of, whatever the pass. */
interface Made {
  readonly matrices: readonly MatrixWork[];
  readonly attention: AttentionWork | undefined;
  /** Values written for a row. */
  readonly columns: number;
  readonly small: boolean;
}

/** Both kinds of pass are asked of a Program. */
const made = new WeakMap<Program, ReadonlyMap<Step, Made>>();

function madeOf(program: Program): ReadonlyMap<Step, Made> {
  const of = (step: Step): Made => ({
    matrices: matricesOfStep(program, step),
    attention: attentionOfStep(program, step),
    columns: columnsWritten(program, step),
    small: isSmall(step),
  });
  const found = made.get(program) ?? new Map(program.steps.map((step) => [step, of(step)]));
  made.set(program, found);
  return found;
}

export class StepCosts {
  readonly #program: Program;
  readonly #made: ReadonlyMap<Step, Made>;
  readonly #profile: MachineProfile;
  readonly #gpus: ReadonlyMap<string, GpuProfile>;
  readonly #devices: readonly (string | undefined)[];
  /** Share of the processor's experts that memory holds; the rest is read from the disk. */
  readonly #inMemory: number;
  /** Of layers that share theirs with a GPU, which holds some: share of the choices that are among those. */
  readonly #hits: ReadonlyMap<number, number>;
  /** Layers whose experts may stream through a GPU (expert-sharing.ts). */
  readonly #streams: ReadonlyMap<number, GpuProfile>;

  constructor(
    program: Program,
    profile: MachineProfile,
    { inMemory, hits }: { readonly inMemory: number; readonly hits?: ReadonlyMap<number, number> },
  ) {
    this.#program = program;
    this.#made = madeOf(program);
    this.#profile = profile;
    this.#gpus = new Map(usedGpus(profile).map((gpu) => [gpu.device, gpu]));
    this.#devices = valueDevices(program);
    this.#inMemory = inMemory;
    this.#hits = hits ?? new Map();
    const shared = inMemory === 1 && this.#gpus.size > 0 ? sharedLayers(program) : [];
    this.#streams = new Map(shared.map(({ layer, device }) => [layer, this.#gpus.get(device)!]));
  }

  of(step: Step, pass: PassRows): StepSeconds {
    if (step.op === 'copy') return { parts: { [HANDOVER]: this.#copy(step, pass) } };
    const gpu = this.#gpus.get(step.placement?.device ?? HOST);
    if (gpu !== undefined) return { parts: this.#onGpu(step, pass, gpu) };
    return executionOf(step, pass.phase)?.kernel === 'reference' ? this.#defined(step, pass) : this.#onCpu(step, pass);
  }

  /** Over the bus, between GPUs too. */
  #copy(step: Step, pass: PassRows): number {
    const [input] = step.inputs;
    const from = input?.kind === 'value' ? this.#devices[input.value] : undefined;
    const ends = [from, step.placement?.device].map((device) => this.#gpus.get(device ?? HOST)?.pcie ?? Infinity);
    const { columns } = this.#made.get(step)!;
    return (columns * this.#rowsOf(step, pass) * 4) / Math.min(...ends);
  }

  #onCpu(step: Step, pass: PassRows): StepSeconds {
    const { phase, rows: all } = pass;
    const rows = this.#rowsOf(step, pass);
    const { tiles = Infinity } = executionOf(step, phase) ?? {};
    const { matrices, attention, columns, small } = this.#made.get(step)!;
    const computed = sum(matrices, (work) => matrixSeconds(work, rows, this.#profile, tiles));
    if (step.op === 'experts') return this.#experts(step, matrices, computed, pass);
    if (attention) {
      const seconds =
        phase === 'decode'
          ? attentionDecodeSeconds(attention, pass.first, this.#profile) * all
          : attentionPrefillSeconds(attention, pass.first, all, this.#profile, all >= tiles);
      return { parts: { [phase === 'decode' ? 'attention over the context' : 'attention']: seconds } };
    }
    const dense = phase === 'decode' ? 'dense weights in memory' : 'arithmetic of the dense layers';
    const around = small ? smallSeconds(columns, rows, this.#profile) : 0;
    return { parts: { [dense]: computed, 'steps without weights': around } };
  }

  /** As far as memory holds them; many rows through a GPU where that is faster. */
  #experts({ layer }: Step, matrices: readonly MatrixWork[], computed: number, { phase, rows }: PassRows): StepSeconds {
    const touched = sum(matrices, (work) => bytesTouched(work, rows));
    const disk = (touched * (1 - this.#inMemory)) / (this.#profile.disk?.bandwidth ?? NO_DISK);
    const gpu = this.#streams.get(layer);
    if (phase === 'decode') {
      // Beside each other: the longer one counts.
      const hit = gpu === undefined ? 0 : (this.#hits.get(layer) ?? 0);
      const misses = computed * this.#inMemory * (1 - hit);
      const held = gpu === undefined ? 0 : (touched * hit) / (gpu.bandwidth * GPU.read);
      if (held > misses) return { parts: { 'experts held by the GPU': held } };
      return { parts: { 'reads of the disk': disk, 'experts in memory': misses } };
    }
    const parts = { 'reads of the disk': disk, 'arithmetic of the experts': computed };
    if (gpu === undefined) return { parts };
    const upload = { bytes: sum(matrices, ({ bytes }) => bytes), bandwidth: gpu.pcie };
    const seconds = streamedSeconds(upload, 2 * rows * sum(matrices, weightsPerToken), gpu.bf16 * GPU.bf16);
    return seconds < computed ? { parts: { 'uploads of experts': seconds }, streamed: true } : { parts };
  }

  #onGpu(step: Step, pass: PassRows, { bandwidth, bf16 }: GpuProfile): Parts {
    const { phase } = pass;
    const rows = this.#rowsOf(step, pass);
    const { tiles = Infinity } = executionOf(step, phase) ?? {};
    const rate = bf16 * (rows >= tiles ? GPU.bf16 : GPU.plain);
    const took = (bytes: number, products = 0) =>
      Math.max(GPU.step, bytes / (bandwidth * GPU.read), (2 * products) / rate);
    const { matrices, attention, columns, small } = this.#made.get(step)!;
    const values = columns * rows * 8;
    if (small) return { 'steps without weights': took(values) };
    const bytes = sum(matrices, (work) => bytesTouched(work, rows)) + values;
    const products = attention ? productsOf(attention, pass, rows >= tiles) : rows * sum(matrices, weightsPerToken);
    const seconds = took(bytes + (attention ? cacheBytes(attention, pass) : 0), products);
    if (phase === 'prefill') return { 'arithmetic of the GPU': seconds };
    return { [attention ? 'attention over the context' : 'memory of the GPU']: seconds };
  }

  /** By the op's definition. */
  #defined(step: Step, pass: PassRows): StepSeconds {
    const rows = this.#rowsOf(step, pass);
    const { matrices, attention, columns } = this.#made.get(step)!;
    const products = attention ? productsOf(attention, pass, false) : rows * sum(matrices, weightsPerToken);
    const values = rows * columns;
    return { parts: { 'steps by their definition': (products + values) / REFERENCE } };
  }

  /** What follows the choice of output rows meets one of a prompt. */
  #rowsOf({ outputs }: Step, { phase, rows }: PassRows): number {
    return phase === 'prefill' && this.#program.values[outputs[0]]?.rows === 'O' ? 1 : rows;
  }
}

/** Of all rows; where keys and values are expanded, of all positions once a pass. */
function productsOf(work: AttentionWork, { phase, rows, first }: PassRows, expands: boolean): number {
  if (phase === 'decode')
    return rows * (work.weights + Math.min(first, work.window ?? Infinity) * work.productsPerPair);
  const pairs = attentionPairs(work, first, rows);
  return expands
    ? work.weights * (first + rows) + pairs * work.expandedPerPair
    : work.weights * rows + pairs * work.productsPerPair;
}

/** That a pass reads: each sequence its own, rows of a prompt share it. */
function cacheBytes({ kvBytesPerToken, window = Infinity }: AttentionWork, { phase, rows, first }: PassRows): number {
  const seen = phase === 'decode' ? rows * Math.min(first, window) : Math.min(first + rows, window + rows);
  return seen * kvBytesPerToken;
}

function sum<T>(items: readonly T[], measure: (item: T) => number): number {
  return items.reduce((all, item) => all + measure(item), 0);
}
