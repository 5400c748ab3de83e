/** Limits of control groups, on trees that never were. */
import { describe, expect, it } from 'vitest';
import { containerLimits, memoryAvailable } from './container.ts';

const GIB = 2 ** 30;
const reader = (files: Readonly<Record<string, string>>) => (path: string) => files[path];

describe('version 2', () => {
  const nested = {
    '/proc/self/cgroup': '0::/box/inner\n',
    '/sys/fs/cgroup/box/cpu.max': '250000 100000\n',
    '/sys/fs/cgroup/box/inner/cpu.max': 'max 100000\n',
    '/sys/fs/cgroup/box/memory.max': `${8 * GIB}\n`,
    '/sys/fs/cgroup/box/memory.current': `${6 * GIB}\n`,
    '/sys/fs/cgroup/box/memory.stat': `anon 1\ninactive_file ${GIB / 2}\nactive_file ${GIB / 2}\n`,
    '/sys/fs/cgroup/box/inner/memory.max': 'max\n',
  };

  it('the limits of a parent hold, page cache counts as left', () => {
    expect(containerLimits(reader(nested))).toEqual({ cpus: 2.5, memory: 8 * GIB, memoryLeft: 3 * GIB });
  });

  it('the tightest limit counts', () => {
    const tight = {
      ...nested,
      '/sys/fs/cgroup/box/inner/cpu.max': '50000 100000',
      '/sys/fs/cgroup/box/inner/memory.max': String(2 * GIB),
      '/sys/fs/cgroup/box/inner/memory.current': String(GIB / 2),
    };
    expect(containerLimits(reader(tight))).toEqual({ cpus: 0.5, memory: 2 * GIB, memoryLeft: 1.5 * GIB });
  });

  it('a container that sees its own group as the root', () => {
    const files = {
      '/proc/self/cgroup': '0::/../../elsewhere\n',
      '/sys/fs/cgroup/cpu.max': '100000 100000',
      '/sys/fs/cgroup/memory.max': String(GIB),
      '/sys/fs/cgroup/memory.current': String(3 * GIB),
    };
    expect(containerLimits(reader(files))).toEqual({ cpus: 1, memory: GIB, memoryLeft: 0 });
  });
});

describe('version 1', () => {
  const files = {
    '/proc/self/cgroup': '5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/init\n',
    '/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us': '150000\n',
    '/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us': '100000\n',
    '/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': String(4 * GIB),
    '/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes': String(3 * GIB),
    '/sys/fs/cgroup/memory/docker/abc/memory.stat': `inactive_file 5\ntotal_inactive_file ${GIB}\ntotal_active_file ${GIB}\n`,
  };

  it('quota and memory', () => {
    expect(containerLimits(reader(files))).toEqual({ cpus: 1.5, memory: 4 * GIB, memoryLeft: 3 * GIB });
  });

  it('no quota is −1, no limit is a number near 2⁶³', () => {
    const free = {
      ...files,
      '/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us': '-1',
      '/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': '9223372036854771712',
    };
    expect(containerLimits(reader(free))).toEqual({});
  });
});

describe('memory that is available', () => {
  const meminfo = { '/proc/meminfo': 'MemTotal: 32000000 kB\nMemFree: 1 kB\nMemAvailable:   16777216 kB\n' };

  it('is what the system says, where no group leaves less', () => {
    expect(memoryAvailable(reader(meminfo))).toBe(16 * GIB);
    const limited = { ...meminfo, '/proc/self/cgroup': '0::/', '/sys/fs/cgroup/memory.max': String(GIB) };
    expect(memoryAvailable(reader({ ...limited, '/sys/fs/cgroup/memory.current': '0' }))).toBe(GIB);
  });

  it('is not known without Linux, and broken files are no limits', () => {
    expect(memoryAvailable(reader({}))).toBeUndefined();
    const broken = {
      '/proc/self/cgroup': 'x\n0::/a',
      '/sys/fs/cgroup/a/cpu.max': 'a b',
      '/sys/fs/cgroup/a/memory.max': '',
    };
    expect(containerLimits(reader(broken))).toEqual({});
  });
});
