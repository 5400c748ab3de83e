/** The machine that is explained for: this one, or one that a file describes. */
import { z } from 'zod';
import type { Machine } from '../../placement/lower.ts';
import { nativeMachine } from '../../placement/machine.ts';
import { availableOf, type MachineProfile, parseProfile, usedGpus } from '../../placement/profile.ts';
import { tileRule } from '../../placement/tiles.ts';
import { machineJson } from '../machine-file.ts';

const device = z.union([z.string(), z.strictObject({ name: z.string(), memory: z.number().positive().optional() })]);
/** Where only the devices matter: `{"devices": ["cuda:0", {"name": "cuda:1", "memory": 24e9}]}`. */
const short = z.strictObject({ devices: z.array(device).min(1) });

/** `file`: a profile of `tandem bench machine --json`, or its short form; absent: this machine. */
export async function machineOf(file?: string): Promise<Machine> {
  if (file === undefined) return nativeMachine();
  const json = await machineJson(file);
  const listed = short.safeParse(json);
  if (!listed.success) return machineFrom(parseProfile(json, file));
  const devices = listed.data.devices.map((each) => (typeof each === 'string' ? { name: each } : each));
  const cpu = devices.some(({ name }) => name === 'cpu') ? [] : [{ name: 'cpu' }];
  return { ...nativeMachine(), devices: [...cpu, ...devices] };
}

function machineFrom(profile: MachineProfile): Machine {
  const { cpu } = profile;
  return {
    device: 'cpu',
    devices: [
      { name: 'cpu', memory: availableOf(profile) },
      ...usedGpus(profile).map(({ device: name, memoryBytes }) => ({ name, memory: memoryBytes })),
    ],
    tiles: tileRule(cpu.tiles),
    hasTiles: cpu.tiles !== '',
  };
}
