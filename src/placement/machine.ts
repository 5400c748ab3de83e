/** This machine as `lower` wants it. The one place of this floor that asks the native core. */
import { knownGpus } from '../backend/native/gpus.ts';
import { loadNative, nativeProblem } from '../backend/native/load.ts';
import { CPU_CACHES, type Machine } from './lower.ts';
import { tileRule, tileUnit } from './tiles.ts';

/**
 * For native kernels of an instruction set (default: the machine's), with the GPUs that can be used. Where the native core is not
 * built: no tiles, no GPUs.
 */
export function nativeMachine(isa?: string): Machine {
  if (nativeProblem() !== undefined) return { device: 'cpu' };
  const unit = tileUnit(loadNative().machine(), isa);
  const machine = { device: 'cpu', tiles: tileRule(unit), hasTiles: unit !== '', caches: CPU_CACHES } as const;
  const { gpus } = knownGpus();
  const usable = gpus.filter((gpu) => gpu.refused === '');
  const refused = Object.fromEntries(gpus.flatMap((gpu) => (gpu.refused === '' ? [] : [[gpu.device, gpu.refused]])));
  const devices = [
    { name: 'cpu' },
    ...usable.map(({ device, memoryBytes }) => ({ name: device, memory: memoryBytes })),
  ];
  return {
    ...machine,
    ...(usable.length > 0 && { devices }),
    ...(usable.length < gpus.length && { refused }),
  };
}
