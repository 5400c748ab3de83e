/**
 * Implementations of ops that users bring: registered under a name, chosen by a rule (`place: { kernel: name }`), run in
 * this process on the rows of a pass. What they get is what the reference gets, so an op's reference is a kernel too.
 */
import { TandemError } from '../errors.ts';
import { nearest } from '../nearest.ts';
import { OPS, opNamed } from './index.ts';
import type { ReferenceContext } from './op.ts';

/**
 * Operands by their place in docs/reference/ops.md: `matrix(0)`, `integers(1)` rows of the pass, `weight(1).row(n)` a
 * decoded row, `number('epsilon')` an attribute; `output(0).data` [rows, columns] is to be filled. Weights and outputs are
 * valid until `run` is done.
 */
export type KernelContext = ReferenceContext;

export interface Kernel {
  /** What rules call it: lower-case words joined by `-`. */
  readonly name: string;
  /** The op that it computes. */
  readonly op: string;
  /** Fills every output. What it throws fails the requests of the pass and no other. */
  run(context: KernelContext): void | Promise<void>;
}

/** Names that every op has: the backend's own kernel, and the definition. */
export const BUILT_IN_KERNELS = ['native', 'reference'] as const;

/** Ops whose result a pass takes from its backend, or that are no computation. */
const FIXED: ReadonlySet<string> = new Set(['sample', 'copy', 'submit', 'wait']);

const KERNELS = new Map<string, Kernel>();

/** Makes a kernel known to rules; the function that comes back forgets it. REQUEST_INVALID where it cannot be one. */
export function registerKernel(kernel: Kernel): () => void {
  const refuse = (rule: string, given: string, fix?: string) =>
    new TandemError('REQUEST_INVALID', { room: 'ops', rule, given, fix });
  if (typeof kernel !== 'object' || kernel === null)
    throw refuse('a kernel is an object of name, op and run', String(kernel));
  const { name, op, run } = kernel;
  if (typeof name !== 'string' || !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name))
    throw refuse('a kernel is named by lower-case words joined by -', String(name));
  if ((BUILT_IN_KERNELS as readonly string[]).includes(name) || KERNELS.has(name))
    throw refuse('kernels have names of their own', `there is a kernel ${name} already`, 'choose another name');
  if (!OPS.has(op)) {
    const near = nearest(String(op), [...OPS.keys()]);
    throw refuse(
      `a kernel computes one of ${replaceable().join(', ')}`,
      `op "${String(op)}"${near ? `; did you mean ${near}?` : ''}`,
    );
  }
  if (!isReplaceable(op)) throw refuse(`a kernel computes one of ${replaceable().join(', ')}`, `op "${op}"`);
  if (typeof run !== 'function') throw refuse('a kernel has a function run(context)', `kernel ${name} has none`);
  KERNELS.set(name, kernel);
  return () => {
    if (KERNELS.get(name) === kernel) KERNELS.delete(name);
  };
}

/** True where a rule may choose who computes the op. */
export function isReplaceable(op: string): boolean {
  return !FIXED.has(op);
}

function replaceable(): string[] {
  return [...OPS.keys()].filter(isReplaceable);
}

/** All names that a rule may give. */
export function kernelNames(): string[] {
  return [...BUILT_IN_KERNELS, ...KERNELS.keys()];
}

/** The kernel registered by that name. */
export function registeredKernel(name: string): Kernel | undefined {
  return KERNELS.get(name);
}

/** What computes a step of `op` in this process; `kernel` absent or `native`: the definition. PLACEMENT_IMPOSSIBLE where there is none. */
export function kernelRun(op: string, kernel?: string): Kernel['run'] {
  if (kernel === undefined || (BUILT_IN_KERNELS as readonly string[]).includes(kernel)) return opNamed(op).reference;
  const found = KERNELS.get(kernel);
  if (found?.op === op) return (context) => found.run(context);
  throw new TandemError('PLACEMENT_IMPOSSIBLE', {
    room: 'ops',
    rule: `a kernel of ${op} is called ${kernel}`,
    given: found ? `it computes ${found.op}` : 'none is registered',
    fix: 'registerKernel() before the model is loaded',
  });
}
