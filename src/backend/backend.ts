/**
 * A backend runs placed Programs. `reference` defines, `null` counts, `native` is fast; all have this face.
 */
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { Batch, PassResult } from '../program/batch.ts';
import type { Program } from '../program/program.ts';

export interface PrepareOptions {
  /** KV pages to allocate (64 tokens each). */
  readonly pages: number;
  /** Most rows of a pass. */
  readonly maxRows: number;
  /** Most output rows of a pass. */
  readonly maxOutputs: number;
  readonly signal?: AbortSignal;
  /** Bytes of weights that are ready, of all. */
  readonly onProgress?: (loaded: number, total: number) => void;
  /** Native only: worker threads; default: physical cores. */
  readonly threads?: number;
  /** Native only: `scalar`, `avx2`, `avx512`, `amx`; default: TANDEM_ISA or the best there is. */
  readonly isa?: string;
  /** Native only: how weights get into memory. */
  readonly load?: 'auto' | 'mmap' | 'pages';
  /** Native only: most bytes to take; default: what the machine or its control group has. */
  readonly memory?: number;
  /** Native only: what GPUs compute of experts on the processor (placement/expert-sharing.ts); default: nothing. */
  readonly sharing?: SharingPlan;
}

/** Runs steps one by one over one batch, so that two backends can be compared in lock-step. */
export interface Stepper {
  step(index: number): Promise<void>;
  /** The dense value [rows, columns] as it is now. */
  read(value: number): Promise<Float32Array | Int32Array>;
  write(value: number, data: Float32Array | Int32Array): Promise<void>;
  finish(): Promise<PassResult>;
  /** Where the backend can show its cache: one page as f32, in the order of KvLayout. */
  readPage?(page: number): Promise<Float32Array>;
}

/** How often each expert was chosen. */
export interface ExpertVisits {
  /** Layer of each row of `counts`. */
  readonly layers: Int32Array;
  /** Columns of `counts`. */
  readonly experts: number;
  /** [layers, experts]; wraps at 2³². */
  readonly counts: Uint32Array;
}

/** Experts of each layer of the Program that its GPU holds beside the processor's, and passes whose experts stream through GPUs. */
export interface SharingPlan {
  /** Absent: none. `payBack`: hits that an upload must bring (placement/hot-experts.ts), default 1. */
  readonly hot?: { readonly slots: Int32Array; readonly bytes: number; readonly payBack?: number };
  /** Rows of a pass from which experts stream, and bytes of each card for both buffers; absent: never. */
  readonly stream?: { readonly from: number; readonly memory: number };
}

/** What GPUs have computed of experts on the processor since load. */
export interface SharingCounts {
  /** Experts that GPUs have room for, and those that they hold. */
  readonly slots: number;
  readonly held: number;
  /** Choices of passes that generate: of experts that were held, and of others. */
  readonly hits: number;
  readonly misses: number;
  readonly uploads: number;
  readonly evictions: number;
  /** Uploads that did not arrive. */
  readonly failures: number;
  readonly uploadedBytes: number;
  readonly streamedPasses: number;
  readonly streamedBytes: number;
}

export interface Executable extends AsyncDisposable {
  readonly program: Program;
  readonly pages: number;
  /** What the backend chose, for people: ISA, threads, how weights were loaded. */
  readonly description: Readonly<Record<string, string | number>>;
  /** One pass; passes of one executable never overlap (a second call waits). */
  run(batch: Batch): Promise<PassResult>;
  /** Drops the rows of the sequence with this slot from the pass in flight, if any. */
  cancel(slot: number): void;
  start(batch: Batch): Promise<Stepper>;
  /** Where the backend counts them: how often each expert was chosen since load. */
  expertVisits?(): ExpertVisits;
  /** Where the backend shares experts with GPUs; undefined where it shares none of this Program. */
  sharingCounts?(): SharingCounts | undefined;
  /** Where the backend can: the bytes of one page of its cache, and back; both wait for the pass in flight. */
  readPage?(page: number): Promise<Uint8Array>;
  writePage?(page: number, bytes: Uint8Array): Promise<void>;
  dispose(): Promise<void>;
}

export interface Backend {
  readonly name: string;
  prepare(program: Program, checkpoint: Checkpoint, options: PrepareOptions): Promise<Executable>;
}
