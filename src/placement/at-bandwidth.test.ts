import { expect, it } from 'vitest';
import { atBandwidth } from './at-bandwidth.ts';
import { parseProfile } from './profile.ts';

const BYTES = 18 / 32; // of a weight in q4_k: 144 bytes for 256
const THEN = 40e9;
const profile = parseProfile(
  {
    cpu: { isa: 'avx512', cores: 2 },
    memory: { bytes: 32e9, bandwidth: THEN, measured: true },
    kernels: {
      matrices: [
        {
          op: 'linear',
          format: 'q4_k',
          costs: [
            [1, BYTES / THEN],
            [64, (5 * BYTES) / THEN],
          ],
        },
      ],
      attention: [],
      small: { step: 1e-6, value: 1e-9 },
      pass: 1e-5,
    },
  },
  'test',
);
const costsAt = (bandwidth: number) => atBandwidth(profile, bandwidth).kernels!.matrices[0].costs;

it('reading moves with the bandwidth, arithmetic stays', () => {
  const [[, single], [, many]] = costsAt(THEN / 2);
  expect(single).toBeCloseTo((2 * BYTES) / THEN, 20);
  expect(many).toBeCloseTo((6 * BYTES) / THEN, 20);
  expect(atBandwidth(profile, THEN / 2).memory).toMatchObject({ bandwidth: THEN / 2, measured: true });
});

it('a kernel that was timed above the ceiling is as far above it then; the same bandwidth changes nothing', () => {
  const [kernel] = profile.kernels!.matrices;
  const faster = {
    ...profile.kernels!,
    matrices: [{ ...kernel, costs: [[1, BYTES / (1.1 * THEN)]] as [number, number][] }],
  };
  const [[, seconds]] = atBandwidth({ ...profile, kernels: faster }, THEN / 2).kernels!.matrices[0].costs;
  expect(seconds).toBeCloseTo((2 * BYTES) / (1.1 * THEN), 20);
  expect(costsAt(THEN)).toEqual(profile.kernels!.matrices[0].costs);
  const { kernels: _, ...sheet } = profile;
  expect(atBandwidth(sheet, 1e9)).toEqual({ ...sheet, memory: { ...sheet.memory, bandwidth: 1e9 } });
});
