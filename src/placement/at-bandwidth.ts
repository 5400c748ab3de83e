/** A machine at another moment: neighbours take memory bandwidth, and kernels that were timed then read faster or slower now. */
import { quantFormat } from '../formats/quants/index.ts';
import type { KernelCosts, MachineProfile } from './profile.ts';

/**
 * The profile as it would have been measured while memory gave `bandwidth` (bytes per second) and not what it says. Of each
 * kernel's time the part that reading its weights takes at full bandwidth moves, arithmetic stays.
 */
export function atBandwidth(profile: MachineProfile, bandwidth: number): MachineProfile {
  const { memory, kernels } = profile;
  const moved = { ...profile, memory: { ...memory, bandwidth } };
  return kernels === undefined ? moved : { ...moved, kernels: kernelsAt(kernels, memory.bandwidth, bandwidth) };
}

function kernelsAt(kernels: KernelCosts, then: number, now: number): KernelCosts {
  const matrices = kernels.matrices.map((kernel) => {
    const { blockBytes, blockSize } = quantFormat(kernel.format);
    const bytes = blockBytes / blockSize;
    const costs = kernel.costs.map(([rows, seconds]): [number, number] => {
      const reading = Math.min(seconds, bytes / then);
      return [rows, seconds - reading + (reading * then) / now];
    });
    return { ...kernel, costs };
  });
  return { ...kernels, matrices };
}
