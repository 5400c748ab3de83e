/** The machine of a profile as `lower` wants it. Asks nothing of this one (`machine.ts` does). */
import { CPU_CACHES, type Machine } from './lower.ts';
import { availableOf, type MachineProfile, usedGpus } from './profile.ts';
import { tileRule } from './tiles.ts';

export function describedMachine(profile: MachineProfile): Machine {
  const { cpu, gpus } = profile;
  const refused = gpus.flatMap(({ device, refused }) => (refused === undefined ? [] : [[device, refused] as const]));
  return {
    device: 'cpu',
    devices: [
      { name: 'cpu', memory: availableOf(profile) },
      ...usedGpus(profile).map(({ device: name, memoryBytes }) => ({ name, memory: memoryBytes })),
    ],
    tiles: tileRule(cpu.tiles),
    hasTiles: cpu.tiles !== '',
    caches: CPU_CACHES,
    profile,
    ...(refused.length > 0 && { refused: Object.fromEntries(refused) }),
  };
}
