import { expect, it } from 'vitest';
import { roomOf } from './fit.ts';
import { parseProfile, usedGpus } from './profile.ts';

const card = (device: string, refused?: string) => ({
  device,
  memoryBytes: 24e9,
  bandwidth: 1e12,
  bf16: 1e14,
  ...(refused === undefined ? {} : { refused }),
});

it('plans with the GPUs that are used alone', () => {
  const profile = parseProfile(
    {
      cpu: { isa: 'avx2', cores: 8 },
      memory: { bytes: 64e9, bandwidth: 5e10 },
      gpus: [card('cuda:0', 'compute capability 7.5'), card('cuda:1')],
    },
    'a profile',
  );
  expect(profile.gpus).toHaveLength(2);
  expect(usedGpus(profile).map(({ device }) => device)).toEqual(['cuda:1']);
  expect(roomOf(profile).cards).toEqual([24e9]);
});
