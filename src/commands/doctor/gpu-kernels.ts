/** `tandem doctor --gpu`: what a card's kernels give on small random models, held against the reference. */
import type { GpuInfo } from '../../backend/native/binding.ts';
import { type GpuTrial, gpuTrials, type TrialResult, tryGpu } from '../../engine/gpu-trials.ts';
import type { Finding } from './finding.ts';

/** Failures that are told; the others are counted. */
const TOLD = 5;

export interface TriedGpu {
  readonly card: string;
  /** Kinds of steps, and how many of them were right in every pass. */
  readonly kinds: number;
  readonly right: number;
  readonly seconds: number;
  /** What went wrong, a sentence each. */
  readonly failures: readonly string[];
}

/** All kernels of one card. `onTrial`: models tried, of all. */
export async function tryKernels(
  { device, name }: Pick<GpuInfo, 'device' | 'name'>,
  onTrial: (done: number, total: number) => void = () => {},
  trials: readonly GpuTrial[] = gpuTrials(),
): Promise<TriedGpu> {
  const started = performance.now();
  const failures: string[] = [];
  let [kinds, right, done] = [0, 0, 0];
  for await (const result of tryGpu(device, trials)) {
    kinds += result.kinds.length;
    right += result.kinds.filter(({ failure }) => failure === undefined).length;
    failures.push(...failuresOf(result));
    onTrial(++done, trials.length);
  }
  return { card: `${device} ${name}`, kinds, right, seconds: (performance.now() - started) / 1000, failures };
}

function failuresOf({ trial, kinds, failure }: TrialResult): string[] {
  const steps = kinds.flatMap((each) => (each.failure === undefined ? [] : [`${each.kind.label}: ${each.failure}`]));
  return [...steps, ...(failure === undefined ? [] : [`${trial.name}: ${failure}`])];
}

/** One for each card; where there is none that can be used, that. */
export function kernelFindings(tried: readonly TriedGpu[]): Finding[] {
  const name = 'GPU kernels';
  if (tried.length === 0)
    return [{ name, state: 'problem', found: 'none tried: no GPU here can be used', fix: 'the finding GPU says why' }];
  return tried.map(({ card, kinds, right, seconds, failures }): Finding => {
    const found = `${card}: ${right} of ${kinds} kinds of steps give what the reference gives, in ${seconds.toFixed(1)} s`;
    if (failures.length === 0) return { name, state: 'ok', found };
    const more = failures.length > TOLD ? [`and ${failures.length - TOLD} more (--json has all)`] : [];
    return {
      name,
      state: 'problem',
      found,
      why: [...failures.slice(0, TOLD), ...more].join('; '),
      fix: 'use the CPU (--rules cpu), and report these lines with the card and its driver',
    };
  });
}
