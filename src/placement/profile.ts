/**
 * A machine as the planner knows it: what it has, and how fast its parts are where that was measured. A profile is plain
 * JSON, so one machine can plan for another (`tandem plan --machine FILE.json`). Nothing here asks a machine anything.
 */
import { z } from 'zod';
import { TandemError } from '../errors.ts';
import { FORMAT_NAMES } from '../formats/dtype.ts';

const positive = z.number().positive();
/** `64` for 64 GB is a slip that would plan nonsense. */
const bytes = z.number().min(1e6, 'this counts bytes (64e9), so it is a million at least');
const whole = z.int().min(1);

/** Rows that one matrix meets, and seconds that each of its weights then costs, all threads together. */
const rowCost = z.tuple([positive, positive]);

/** What the kernels of a machine reached. Seconds with all threads that a model takes. */
const kernels = z.strictObject({
  /** By op and weight format; rows ascending, the first is 1. */
  matrices: z.array(
    z.strictObject({
      op: z.enum(['linear', 'experts']),
      format: z.enum(FORMAT_NAMES),
      costs: z.array(rowCost).min(1),
    }),
  ),
  /** Seconds a product (of `AttentionWork`) for single rows and for many, and a weight that expands or absorbs. */
  attention: z.array(
    z.strictObject({
      op: z.enum(['attention', 'mla']),
      decode: z.strictObject({ product: z.number().min(0), weight: z.number().min(0) }),
      prefill: z.strictObject({ product: z.number().min(0), weight: z.number().min(0) }),
    }),
  ),
  /** A step without matrices: of one row, and for each further value that it writes. */
  small: z.strictObject({ step: z.number().min(0), value: z.number().min(0) }),
  /** A pass, beside its steps. */
  pass: z.number().min(0),
});

const gpu = z.strictObject({
  /** `cuda:0` … */
  device: z.string().regex(/^[a-z]+:\d+$/, 'a device is written cuda:0'),
  name: z.string().default('GPU'),
  memoryBytes: bytes,
  /** Bytes per second: its memory, and the bus from the machine's memory. */
  bandwidth: bytes,
  pcie: bytes.default(25e9),
  /** Of the bus where memory is not pinned. */
  pageable: bytes.optional(),
  /** Whether these were measured on the card, or come from its data sheet. */
  measured: z.boolean().default(false),
  /** Dense bf16 operations per second. */
  bf16: positive,
  /** Why nothing is placed on it; absent: it is used. */
  refused: z.string().optional(),
});

const schema = z.strictObject({
  name: z.string().optional(),
  cpu: z.strictObject({
    model: z.string().default('CPU'),
    isa: z.enum(['scalar', 'avx2', 'avx512', 'amx']),
    /** What multiplies bf16 on tiles; '' or absent: nothing. */
    tiles: z.enum(['', 'amx', 'amx-emulated', 'avx512-bf16']).default(''),
    /** Cores that the process may use, and the threads that a model takes (default: all, one less from 8 on). */
    cores: whole,
    threads: whole.optional(),
  }),
  memory: z.strictObject({
    bytes,
    /** What a process may still take; default: all but a sixteenth, at most 4 GiB. */
    available: positive.optional(),
    nodes: whole.default(1),
    /** Bytes per second that all threads read. */
    bandwidth: bytes,
    /** Whether that was read from the machine, or from its data sheet. */
    measured: z.boolean().default(false),
  }),
  /** Operations per second on all threads, a product and a sum counted as two; absent: by instruction set and cores. */
  peaks: z.strictObject({ int8: positive.optional(), bf16: positive.optional(), f32: positive.optional() }).default({}),
  kernels: kernels.optional(),
  gpus: z
    .array(gpu)
    .refine((gpus) => new Set(gpus.map(({ device }) => device)).size === gpus.length, 'two have the same device')
    .default([]),
  /** Bytes per second that it reads at least once a second, and bytes that are free. */
  disk: z.strictObject({ bandwidth: positive, free: z.number().min(0).optional() }).optional(),
  /** Of the control group. */
  container: z.strictObject({ cpus: positive.optional(), memory: positive.optional() }).optional(),
});

export type MachineProfile = z.output<typeof schema>;
export type KernelCosts = NonNullable<MachineProfile['kernels']>;
export type GpuProfile = MachineProfile['gpus'][number];

/**
 * A profile from parsed JSON: the profile itself, or what has it as `profile` (`tandem bench machine --json`) or
 * `result.profile` (`--record`). REQUEST_INVALID names the first field that is wrong.
 */
export function parseProfile(json: unknown, name: string): MachineProfile {
  const found = schema.safeParse(unwrap(json));
  if (found.success) return found.data;
  const [issue] = found.error.issues;
  const field = issue.path.join('.') || 'the profile';
  throw new TandemError('REQUEST_INVALID', {
    room: 'placement',
    rule: 'a machine is described by cpu { isa, cores }, memory { bytes, bandwidth } and more where it is known, in bytes and bytes per second',
    given: `${name}: ${field}: ${issue.message}`,
    fix: 'see docs/guide/plan.md, or take what `tandem bench machine --json` prints on that machine',
  });
}

function unwrap(json: unknown): unknown {
  const of = (value: unknown, key: string) => (value as Record<string, unknown> | null | undefined)?.[key];
  return of(json, 'profile') ?? of(of(json, 'result'), 'profile') ?? json;
}

/** The GPUs that models are placed on. */
export function usedGpus({ gpus }: MachineProfile): readonly GpuProfile[] {
  return gpus.filter(({ refused }) => refused === undefined);
}

/** Threads that a model takes there. */
export function threadsOf({ cpu }: MachineProfile): number {
  return cpu.threads ?? (cpu.cores >= 8 ? cpu.cores - 1 : cpu.cores);
}

const SYSTEM_SHARE = 1 / 16;
const SYSTEM_MOST = 4 * 2 ** 30;

/** Bytes that a process may take there. */
export function availableOf({ memory, container }: MachineProfile): number {
  const most = Math.min(memory.bytes, container?.memory ?? Infinity);
  return Math.min(memory.available ?? most - Math.min(most * SYSTEM_SHARE, SYSTEM_MOST), most);
}
