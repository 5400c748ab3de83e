/**
 * The face of the native addon, as typed as the other side allows. Everything here is implemented in native/addon/.
 * Native errors arrive as Error with `code` (an ErrorCode) and a message already in the house's form.
 */

import type { ActivationFormat } from '../../program/program.ts';
import type { ExpertVisits, SharingCounts } from '../backend.ts';

export type Isa = 'scalar' | 'avx2' | 'avx512' | 'amx';

/**
 * What multiplies bf16 on tiles (fast mode): AMX, the same in plain C++ (for tests where there is no AMX), AVX512-BF16.
 */
export type TileUnit = 'amx' | 'amx-emulated' | 'avx512-bf16';

export interface MachineInfo {
  readonly vendor: string;
  readonly model: string;
  /** Builds of the kernels that run here, weakest first. */
  readonly isas: readonly Isa[];
  /** The one taken by default (TANDEM_ISA respected). */
  readonly isa: Isa;
  /** The unit that the kernels of `isa` use for steps with `tiles` (TANDEM_TILES respected); '' = none. */
  readonly tiles: TileUnit | '';
  /** Why a processor that names AMX is not used as one; '' where it is, or names none. */
  readonly amxProblem: string;
  /** CPU features by name: avx2 fma f16c avx512f avx512bw avx512vl avx512vnni avx512bf16 amx-int8 amx-bf16 … */
  readonly features: readonly string[];
  readonly logicalCores: number;
  readonly physicalCores: number;
  /** Processors this process may use (affinity, cgroup quota). */
  readonly usableCores: number;
  /** Threads of a model when nobody says: all usable cores, one less where there are 8 or more. */
  readonly defaultThreads: number;
  /** Nodes with processors this process may use. */
  readonly numaNodes: number;
  readonly memoryBytes: number;
  readonly availableBytes: number;
}

/** A GPU as its driver describes it. */
export interface GpuInfo {
  /** `cuda:0` … */
  readonly device: string;
  readonly name: string;
  /** Its address on the bus: `0000:01:00.0`. */
  readonly bus: string;
  /** Compute capability: `8.9`. */
  readonly capability: string;
  readonly memoryBytes: number;
  /** Where it was asked for. */
  readonly freeBytes?: number;
  readonly multiprocessors: number;
  /** Bytes, and dense bf16 operations, a second, by clocks and widths that the driver tells: not measured. */
  readonly bandwidth: number;
  readonly bf16: number;
  /** Why it cannot be used; '' where it can. */
  readonly refused: string;
}

export interface GpuList {
  /** CUDA that the driver serves: `13.0`; '' = no driver, or none that can be used. */
  readonly cuda: string;
  /** Why the driver cannot be used; '' where it can, or where there is none. */
  readonly problem: string;
  readonly gpus: readonly GpuInfo[];
}

/** Bytes a second, measured: read and written by a copy on the card; to it from pinned memory, and from other memory. */
export interface GpuRates {
  readonly copy: number;
  readonly pinned: number;
  readonly pageable: number;
}

export interface NativeModelOptions {
  /** `encodeProgram`. */
  readonly program: Uint8Array;
  /** Files that locations refer to: a path, or bytes that are copied. */
  readonly files: readonly (string | Uint8Array)[];
  readonly pages: number;
  readonly maxRows: number;
  readonly maxOutputs: number;
  /** 0 = automatic. */
  readonly threads: number;
  /** '' = automatic. */
  readonly isa: Isa | '';
  readonly load: 'auto' | 'mmap' | 'pages';
  /** Most bytes to take; 0 = what the machine or its control group has. */
  readonly memory?: number;
  /** Where steps are placed on GPUs: file of their compiled kernels, and CUDA that compiled them (13000 = 13.0, 0 = not known). */
  readonly kernels?: string;
  readonly kernelsVersion?: number;
  /** Experts of each layer that its GPU holds beside the processor's, and hits that an upload must bring. Left out: none. */
  readonly hotSlots?: Int32Array;
  readonly hotPayBack?: number;
  /** Rows of a prompt from which experts stream, and bytes of each GPU for both buffers. Left out: never. */
  readonly streamFrom?: number;
  readonly streamMemory?: number;
}

/** Result of a pass as native returns it; `top*` are [outputs, maxTop], padded with −1 / NaN. */
export interface NativePassResult {
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  readonly maxTop: number;
  readonly topTokens: Int32Array;
  readonly topLogprobs: Float32Array;
  readonly logits?: Float32Array;
  readonly milliseconds: number;
}

/** A loaded model. Methods other than `cancel` and `describe` must not overlap. */
export interface NativeModel {
  /** `encodeBatch`. Runs on the executor thread; the event loop stays free. */
  run(batch: Uint8Array): Promise<NativePassResult>;
  cancel(slot: number): void;
  describe(): Record<string, string | number>;
  /** Lock-step: begin a pass, run single steps, look at and replace values, end the pass. */
  begin(batch: Uint8Array): Promise<void>;
  step(index: number): Promise<void>;
  /** Steps [first, last); fewer where every sequence is cancelled. */
  steps(first: number, last: number): Promise<void>;
  read(value: number): Promise<Float32Array | Int32Array>;
  write(value: number, data: Float32Array | Int32Array): Promise<void>;
  end(): Promise<NativePassResult>;
  /** How often each expert was chosen since load, [layers with a router, experts]; counts wrap at 2³². */
  expertVisits(): ExpertVisits;
  /** What GPUs have computed of experts on the processor since load. */
  shareCounts(): SharingCounts;
  /** The bytes of one page of the cache, and back. */
  readPage(page: number): Promise<Uint8Array>;
  writePage(page: number, bytes: Uint8Array): Promise<void>;
  /** Per step: name, calls, total microseconds since load (for `explain` and benchmarks). */
  timings(): { step: number; calls: number; microseconds: number }[];
  /** Frees everything once the pass in flight has ended. Idempotent. */
  dispose(): Promise<void>;
}

/** Instruction set and operands: int8 × int8 → int32, bf16 × bf16 → f32, f32 × f32 → f32. */
export type PeakName =
  | 'avx2_int8'
  | 'avx2_f32'
  | 'avx512_int8'
  | 'avx512_f32'
  | 'avx512_bf16'
  | 'amx_int8'
  | 'amx_bf16';

export interface NativeBinding {
  /** Equals the package version the addon was built for. */
  readonly version: string;
  machine(): MachineInfo;
  /**
   * NVIDIA GPUs; the driver is looked for at run time, and a machine without is no error. `kernels`: file of compiled kernels,
   * '' = none; `version`: CUDA that compiled them, 13000 = 13.0, 0 = not known. `free`: also ask how much memory is free (a quarter
   * of a second a GPU).
   */
  gpus(kernels: string, version: number, free: boolean): GpuList;
  /** For benchmarks: copies of that GPU, some of each kind; a fifth of a second. `kernels`, `version`: as for `gpus`. */
  gpuRates(kernels: string, version: number, ordinal: number): GpuRates;
  createModel(
    options: NativeModelOptions,
    onProgress: (loaded: number, total: number) => void,
    /** Set word 0 to non-zero to stop loading (error ABORTED). */
    cancel: Int32Array,
  ): Promise<NativeModel>;
  /** For benchmarks: the system's page cache forgets the file, as far as nobody uses it. */
  dropCache(path: string): void;
  /** For the conformance suite: decode rows with the kernels of one ISA. `scales`: as in the Program, for the whole matrix. */
  decodeRows(
    format: string,
    bytes: Uint8Array,
    rows: number,
    columns: number,
    scales: Float32Array | null,
    isa: Isa,
  ): Float32Array;
  /** For the conformance suite: activation codes and scales of one row. */
  quantize(format: ActivationFormat, x: Float32Array, isa: Isa): { codes: Int8Array; scales: Float32Array };
  /**
   * For benchmarks: reads `bytes` of huge pages with so many threads (0: as many as a model takes), several times, each
   * thread from its own NUMA node; the fastest round, and the threads it had. Keeps the calling thread busy.
   */
  readBandwidth(
    threads: number,
    bytes: number,
  ): {
    threads: number;
    bytesPerSecond: number;
    /** Each NUMA node alone; empty where there is one. */
    nodes: { node: number; threads: number; bytesPerSecond: number }[];
  };
  /**
   * For benchmarks: the most arithmetic that each instruction set gives here, operands in registers, on so many threads at
   * once (0: as many as a model takes). A product and a sum are two operations.
   */
  peaks(threads: number): { name: PeakName; threads: number; operationsPerSecond: number }[];
}
