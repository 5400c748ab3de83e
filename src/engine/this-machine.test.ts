/** What is kept of a machine between processes, and what is looked up anew. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { nativeProblem } from '../backend/native/load.ts';
import type { KernelCosts, MachineProfile } from '../placement/profile.ts';
import {
  availableMemory,
  keepProfile,
  keptMeasurement,
  keptProfile,
  machineBusy,
  machineFacts,
  profilePath,
  totalMemory,
  withKernels,
  withMeasuredGpus,
} from './this-machine.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-profile-'));
beforeEach(() => {
  vi.stubEnv('XDG_CACHE_HOME', folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
});
afterAll(() => rmSync(folder, { recursive: true }));

const kernelsOf = (format: 'q4_k' | 'q8_0', seconds: number): KernelCosts => ({
  matrices: [{ op: 'linear', format, costs: [[1, seconds]] }],
  attention: [],
  small: { step: 1e-6, value: 0 },
  pass: 0,
});

it('lies in the cache folder of the user', () => {
  expect(profilePath({ XDG_CACHE_HOME: '/c' })).toBe('/c/tandem/machine.json');
  expect(profilePath({})).toMatch(/\.cache\/tandem\/machine\.json$/);
});

it('a card keeps what was measured on it, another one in its place does not', () => {
  const now = { device: 'cuda:0', name: 'RTX', memoryBytes: 24e9, bandwidth: 1e12, pcie: 25e9, measured: false, bf16: 150e12 }; // biome-ignore format: one line
  const before = { ...now, bandwidth: 9e11, pcie: 2e10, pageable: 1e10, measured: true, bf16: 1 };
  expect(withMeasuredGpus([now], [before])).toEqual([{ ...before, bf16: 150e12 }]);
  for (const other of [{ device: 'cuda:1' }, { name: 'GTX' }, { memoryBytes: 12e9 }, { measured: false }])
    expect(withMeasuredGpus([now], [{ ...before, ...other }])).toEqual([now]);
});

it('memory that is available is less than there is', () => {
  expect(availableMemory()).toBeGreaterThan(0);
  expect(availableMemory()).toBeLessThanOrEqual(totalMemory());
});

it('kernels that are measured anew replace those of before, the others stay', () => {
  const profile = { kernels: kernelsOf('q4_k', 1) } as MachineProfile;
  expect(withKernels({ ...profile, kernels: undefined }, kernelsOf('q8_0', 2)).kernels).toEqual(kernelsOf('q8_0', 2));
  const both = withKernels(profile, kernelsOf('q8_0', 2));
  expect(both.kernels!.matrices.map(({ format }) => format)).toEqual(['q8_0', 'q4_k']);
  expect(withKernels(both, kernelsOf('q4_k', 3)).kernels!.matrices.map(({ costs }) => costs)).toEqual([
    [[1, 3]],
    [[1, 2]],
  ]);
});

it('a machine is busy where others take most of a processor, or a quarter of many', () => {
  expect([machineBusy([0.7], 2), machineBusy([0.9], 2), machineBusy([15], 64), machineBusy([17], 64)]).toEqual([
    false,
    true,
    false,
    true,
  ]);
});

describe.skipIf(nativeProblem())('a kept profile', () => {
  const measured = (): MachineProfile => {
    const { cpu, memory, container } = machineFacts();
    return {
      cpu,
      memory: { ...memory, bandwidth: 3e10, measured: true },
      peaks: { f32: 1e11 },
      kernels: kernelsOf('q4_k', 1e-11),
      gpus: [],
      container,
    };
  };
  const file = () => JSON.parse(readFileSync(profilePath(), 'utf8'));

  it('comes back with the limits of now', async () => {
    const profile = measured();
    await keepProfile({ ...profile, memory: { ...profile.memory, available: 1 } });
    const kept = await keptProfile();
    expect(kept).toMatchObject({ kernels: profile.kernels, memory: { bandwidth: 3e10, measured: true } });
    expect(kept!.memory.available).toBeGreaterThan(1e6);
  });

  it('of another machine, or damaged, is none', async () => {
    await keepProfile(measured());
    const { profile } = file();
    for (const text of [
      JSON.stringify({ key: 'another', profile }),
      '{',
      '{}',
      JSON.stringify({ ...file(), profile: {} }),
    ]) {
      writeFileSync(profilePath(), text);
      expect(await keptProfile()).toBeUndefined();
    }
  });

  it('says whether the machine was busy when it was measured', async () => {
    await keepProfile(measured());
    expect(await keptMeasurement()).toMatchObject({ busy: false });
    await keepProfile(measured(), true);
    expect(await keptMeasurement()).toMatchObject({ busy: true, profile: { memory: { bandwidth: 3e10 } } });
  });

  it('a folder that cannot be written is no error', async () => {
    vi.stubEnv('XDG_CACHE_HOME', join(profilePath(), 'file')); // a file is no folder
    await keepProfile(measured());
    expect(await keptProfile()).toBeUndefined();
  });
});
