/** The fast paths of a machine: which kernels, in which mode, over passes of which shape. */
import type { Isa, MachineInfo } from '../../backend/native/binding.ts';
import type { Shape } from './passes.ts';

export interface VerifyPath {
  /** For people, unique: `avx512, chunks of 7`. */
  readonly name: string;
  readonly isa: Isa;
  /** Worker threads; undefined: the default. */
  readonly threads?: number;
  readonly exact: boolean;
  readonly load: 'mmap' | 'pages';
  readonly shape: Shape;
  /** Exact paths of one instruction set give the same bits as the first of them, whatever their shape. */
  readonly sameBitsAs?: string;
}

/** Everything at once, as a prompt comes. */
const WHOLE: Shape = { kind: 'chunks', size: Number.MAX_SAFE_INTEGER };

const SHAPES: readonly (readonly [string, Shape])[] = [
  ['token by token', { kind: 'chunks', size: 1 }],
  ['chunks of 7', { kind: 'chunks', size: 7 }],
  ['chunks of 40', { kind: 'chunks', size: 40 }],
  ['among others', { kind: 'company' }],
  ['first pages shared', { kind: 'shared' }],
  ['first pages restored', { kind: 'restored' }],
];

/**
 * Each instruction set whole, in exact mode and, with `hasTiles`, in fast mode; the machine's own in every shape, with one
 * thread, and from huge pages.
 */
export function pathsOf(machine: MachineInfo, hasTiles: (isa: Isa) => boolean): VerifyPath[] {
  const paths: VerifyPath[] = [];
  for (const isa of [...machine.isas].reverse()) {
    const name = isa;
    paths.push({ name, isa, exact: true, load: 'mmap', shape: WHOLE });
    if (isa === machine.isa) {
      const same = { isa, exact: true, sameBitsAs: name } as const;
      for (const [words, shape] of SHAPES) paths.push({ ...same, name: `${isa}, ${words}`, load: 'mmap', shape });
      if (machine.defaultThreads > 1)
        paths.push({ ...same, name: `${isa}, 1 thread`, threads: 1, load: 'mmap', shape: WHOLE });
      paths.push({ ...same, name: `${isa}, read into pages`, load: 'pages', shape: WHOLE });
    }
    if (!hasTiles(isa)) continue;
    paths.push({ name: `${isa}, fast`, isa, exact: false, load: 'mmap', shape: WHOLE });
    if (isa === machine.isa)
      for (const [words, shape] of SHAPES.slice(0, 3))
        paths.push({ name: `${isa}, fast, ${words}`, isa, exact: false, load: 'mmap', shape });
  }
  return paths;
}
