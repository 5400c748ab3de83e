import { expect, it } from 'vitest';
import { hostFacts } from './host.ts';

const FILES: Record<string, string> = {
  '/sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
  '/proc/sys/kernel/numa_balancing': '1\n',
  '/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor': 'powersave\n',
  '/proc/pressure/cpu': 'some avg10=1.00 avg60=25.50 avg300=3.00 total=5\n',
  '/proc/meminfo': 'MemTotal: 100 kB\nSwapTotal:      2048 kB\nSwapFree:       1024 kB\n',
  '/proc/driver/nvidia/version': 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build\n',
  '/proc/driver/nvidia/gpus/0000:01:00.0/information': 'Model: \t\t NVIDIA RTX 4090\nIRQ: 5\n',
};

it('reads what the system tells', () => {
  const facts = hostFacts(
    (path) => FILES[path],
    (folder) => (folder.endsWith('gpus') ? ['0000:01:00.0'] : []),
  );
  expect(facts).toEqual({
    hugePages: 'madvise',
    numaBalancing: true,
    governor: 'powersave',
    cpuPressure: 0.255,
    swap: { used: 2 ** 20, total: 2 ** 21 },
    nvidia: { version: '570.133.20', gpus: ['NVIDIA RTX 4090'] },
  });
});

it('leaves out what it does not', () => {
  expect(
    Object.values(
      hostFacts(
        () => undefined,
        () => [],
      ),
    ).filter((value) => value !== undefined),
  ).toEqual([]);
});
