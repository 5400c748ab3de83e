/** The machine that is explained for: this one, or one that a file describes. */
import { z } from 'zod';
import { likelyProfile } from '../../engine/this-machine.ts';
import { describedMachine } from '../../placement/described-machine.ts';
import type { Machine } from '../../placement/lower.ts';
import { nativeMachine } from '../../placement/machine.ts';
import { parseProfile } from '../../placement/profile.ts';
import { machineJson } from '../machine-file.ts';

const device = z.union([z.string(), z.strictObject({ name: z.string(), memory: z.number().positive().optional() })]);
/** Where only the devices matter: `{"devices": ["cuda:0", {"name": "cuda:1", "memory": 24e9}]}`. */
const short = z.strictObject({ devices: z.array(device).min(1) });

/** `file`: a profile of `tandem bench machine --json`, or its short form; absent: this machine. */
export async function machineOf(file?: string): Promise<Machine> {
  if (file === undefined) return here();
  const json = await machineJson(file);
  const listed = short.safeParse(json);
  if (!listed.success) return describedMachine(parseProfile(json, file));
  const devices = listed.data.devices.map((each) => (typeof each === 'string' ? { name: each } : each));
  const cpu = devices.some(({ name }) => name === 'cpu') ? [] : [{ name: 'cpu' }];
  return { ...nativeMachine(), devices: [...cpu, ...devices] };
}

async function here(): Promise<Machine> {
  const machine = nativeMachine();
  return machine.devices === undefined ? machine : { ...machine, profile: await likelyProfile() };
}
