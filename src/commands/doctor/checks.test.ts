import { expect, it } from 'vitest';
import type { GpuInfo, GpuList, MachineInfo } from '../../backend/native/binding.ts';
import { type Facts, findings } from './checks.ts';

const NATIVE: MachineInfo = {
  vendor: 'x',
  model: 'Xeon',
  isas: ['scalar', 'avx2', 'avx512', 'amx'],
  isa: 'amx',
  tiles: 'amx',
  amxProblem: '',
  features: [],
  logicalCores: 32,
  physicalCores: 16,
  usableCores: 32,
  defaultThreads: 15,
  numaNodes: 2,
  memoryBytes: 512e9,
  availableBytes: 500e9,
};
const CARD: GpuInfo = {
  device: 'cuda:0',
  name: 'RTX 4090',
  bus: '0000:01:00.0',
  capability: '8.9',
  memoryBytes: 24e9,
  freeBytes: 23e9,
  multiprocessors: 128,
  bandwidth: 1e12,
  bf16: 165e12,
  refused: '',
};
const GOOD: Facts = {
  native: NATIVE,
  gpus: { cuda: '', problem: '', gpus: [] },
  host: {
    hugePages: 'madvise',
    numaBalancing: false,
    governor: 'performance',
    cpuPressure: 0.01,
    swap: { used: 0, total: 0 },
  },
  container: {},
  dimms: Array.from({ length: 8 }, (_, i) => ({ slot: `A${i}`, bytes: 64e9, transfersPerSecond: 4800e6 })),
  bandwidth: { one: 12e9, all: 220e9 },
  disk: { folder: '/home', free: 1e12, remote: false, rotational: false },
  forced: [],
};

function states(facts: Facts): Record<string, string> {
  return Object.fromEntries(findings(facts).map(({ name, state }) => [name, state]));
}

it('has nothing to say against a good machine, but for the GPU that is not there', () => {
  const { GPU, ...others } = states(GOOD);
  expect(GPU).toBe('note');
  expect(new Set(Object.values(others))).toEqual(new Set(['ok']));
  expect(Object.keys(others)).toEqual(expect.arrayContaining(['huge pages', 'NUMA balancing', 'memory modules']));
});

const native = (change: Partial<MachineInfo>): Partial<Facts> => ({ native: { ...NATIVE, ...change } });
const host = (change: Partial<Facts['host']>): Partial<Facts> => ({ host: { ...GOOD.host, ...change } });
const DRIVER = host({ nvidia: { version: '570.1.2', gpus: ['RTX 4090'] } });
const cards = (change: Partial<GpuInfo>): { gpus: GpuList } => ({
  gpus: { cuda: '12.8', problem: '', gpus: [{ ...CARD, ...change }] },
});

it.each<[string, Partial<Facts>, string, string, RegExp]>([
  [
    'a forced instruction set',
    { forced: ['TANDEM_ISA=avx2'], ...native({ isa: 'avx2', tiles: '' }) },
    'instructions',
    'problem',
    /unset TANDEM_ISA/,
  ],
  ['the best, forced', { forced: ['TANDEM_ISA=amx'] }, 'instructions', 'note', /unset TANDEM_ISA/],
  [
    'AMX that is not used',
    native({ isa: 'avx512', amxProblem: 'the kernel refused it' }),
    'instructions',
    'problem',
    /the kernel refused it/,
  ],
  ['no vectors', native({ isas: ['scalar'], isa: 'scalar', tiles: '' }), 'instructions', 'problem', /AVX2/],
  ['a CPU limit', { container: { cpus: 4 } }, 'threads', 'note', /allows 4\.00.*--cpus/s],
  ['an affinity mask', native({ usableCores: 8, defaultThreads: 7 }), 'threads', 'note', /taskset/],
  ['a memory limit', { container: { memory: 64e9 } }, 'memory', 'note', /allows 64\.0 GB.*--memory/s],
  [
    'half of the slots empty',
    { dimms: [...GOOD.dimms.slice(0, 4), ...GOOD.dimms.slice(4).map((d) => ({ ...d, bytes: 0 }))] },
    'memory modules',
    'note',
    /4 of 8 slots.*free: A4, A5/s,
  ],
  ['slow memory', { bandwidth: { one: 10e9, all: 60e9 } }, 'memory modules', 'note', /60\.0 GB\/s measured/],
  ['modules that are hidden', { dimms: [] }, 'memory modules', 'note', /needs root/],
  ['no huge pages', host({ hugePages: 'never' }), 'huge pages', 'problem', /echo madvise/],
  ['NUMA balancing', host({ numaBalancing: true }), 'NUMA balancing', 'problem', /echo 0/],
  ['a low frequency', host({ governor: 'powersave' }), 'frequency', 'note', /echo performance/],
  ['other work', host({ cpuPressure: 0.6 }), 'other work', 'problem', /60 % of the last minute/],
  ['swap in use', host({ swap: { used: 5e9, total: 8e9 } }), 'swap', 'note', /5\.00 GB of 8\.00 GB/],
  ['a network disk', { disk: { ...GOOD.disk, remote: true } }, 'disk', 'note', /network file system/],
  ['a rotating disk', { disk: { ...GOOD.disk, rotational: true } }, 'disk', 'note', /SSD/],
  [
    'a GPU',
    { ...DRIVER, ...cards({}) },
    'GPU',
    'note',
    /cuda:0 RTX 4090 \(compute capability 8\.9, 24\.0 GB, 23\.0 GB free\); driver 570\.1\.2, CUDA 12\.8 cuda:0: the kernels .* have not run on this card yet tandem doctor --gpu/,
  ],
  [
    'a GPU that was checked',
    { ...cards({}), checked: new Map([['cuda:0', { right: 31, at: '2026-11-23T17:00:00.000Z' }]]) },
    'GPU',
    'note',
    /cuda:0: 31 checks of kernels on this card were right, the last on 2026-11-23/,
  ],
  ['an old GPU', cards({ refused: 'compute capability 7.5' }), 'GPU', 'note', /is not used: compute capability 7\.5/],
  [
    'an old driver',
    { ...DRIVER, gpus: { cuda: '', problem: '[native] a GPU needs CUDA 12.0; x serves 11.4; update it', gpus: [] } },
    'GPU',
    'problem',
    /driver 570\.1\.2 a GPU needs CUDA 12\.0; x serves 11\.4 update it/,
  ],
  ['a driver without its library', DRIVER, 'GPU', 'note', /RTX 4090; driver 570\.1\.2, whose library.*--gpus all/s],
])('%s', (_, change, name, state, words) => {
  const facts = { ...GOOD, ...change };
  expect(states(facts)[name]).toBe(state);
  const { found, why = '', fix = '' } = findings(facts).find((finding) => finding.name === name)!;
  expect(`${found} ${why} ${fix}`).toMatch(words);
});

it('says nothing of what the system does not tell', () => {
  const names = Object.keys(states({ ...GOOD, host: {} }));
  for (const name of ['huge pages', 'NUMA balancing', 'frequency', 'other work', 'swap'])
    expect(names).not.toContain(name);
});
