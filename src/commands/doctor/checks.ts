/** From facts to findings: what is fine, what costs speed, what to do about it. Pure. */
import type { GpuList, MachineInfo } from '../../backend/native/binding.ts';
import type { ContainerLimits } from '../../placement/container.ts';
import { formatBytes, formatRate } from '../terminal.ts';
import type { Dimm } from './dimms.ts';
import type { Finding } from './finding.ts';
import type { HostFacts } from './host.ts';

export interface Facts {
  readonly native: MachineInfo;
  readonly gpus: GpuList;
  /** By device: how many kinds of steps were right when models were loaded there, and when last. */
  readonly checked?: ReadonlyMap<string, { readonly right: number; readonly at: string }>;
  readonly host: HostFacts;
  readonly container: ContainerLimits;
  readonly dimms: readonly Dimm[];
  /** Bytes per second that memory was read with: by one thread, and by all that a model takes. */
  readonly bandwidth: { readonly one: number; readonly all: number };
  /** Where models are kept. */
  readonly disk: {
    readonly folder: string;
    readonly free: number;
    readonly remote: boolean;
    readonly rotational?: boolean;
  };
  /** Forced by the environment: TANDEM_ISA, TANDEM_TILES, TANDEM_NUMA. */
  readonly forced: readonly string[];
}

/** In the order in which a person would ask. */
export function findings(facts: Facts): Finding[] {
  return [
    processor(facts),
    instructions(facts),
    cores(facts),
    memory(facts),
    bandwidth(facts),
    modules(facts),
    hugePages(facts),
    numa(facts),
    governor(facts),
    pressure(facts),
    swap(facts),
    disk(facts),
    gpu(facts),
  ].filter((finding) => finding !== undefined);
}

function processor({ native }: Facts): Finding {
  const { model, physicalCores, logicalCores, numaNodes } = native;
  const cores = `${physicalCores} cores${logicalCores > physicalCores ? `, ${logicalCores} with SMT` : ''}`;
  const nodes = numaNodes > 1 ? `, ${numaNodes} NUMA nodes` : '';
  return { name: 'processor', state: 'ok', found: `${model}: ${cores}${nodes}` };
}

function instructions({ native, forced }: Facts): Finding {
  const name = 'instructions';
  const { isa, isas, tiles, amxProblem } = native;
  const found = `${isa}${tiles ? `, tiles on ${tiles}` : ''}`;
  if (forced.length > 0)
    return {
      name,
      state: isa === isas[isas.length - 1] ? 'note' : 'problem',
      found: `${found}; the environment sets ${forced.join(', ')}`,
      why: `this machine also runs ${isas.join(', ')}`,
      fix: `unset ${forced.map((entry) => entry.split('=')[0]).join(' ')}`,
    };
  if (amxProblem)
    return {
      name,
      state: 'problem',
      found,
      why: `AMX is there and not used: ${amxProblem}`,
      fix: 'update the kernel or the hypervisor',
    };
  if (isa === 'scalar')
    return {
      name,
      state: 'problem',
      found,
      why: 'without AVX2 every step is ten times slower',
      fix: 'take a processor from 2013 or later',
    };
  return { name, state: 'ok', found };
}

function cores({ native, container }: Facts): Finding {
  const { usableCores, logicalCores, defaultThreads } = native;
  const found = `${defaultThreads} threads by default, ${usableCores} of ${logicalCores} processors usable`;
  const name = 'threads';
  if (container.cpus !== undefined && container.cpus < logicalCores)
    return {
      name,
      state: 'note',
      found: `${found}; the control group allows ${formatRate(container.cpus)}`,
      fix: 'raise the CPU limit of the container (docker run --cpus, Kubernetes resources.limits.cpu)',
    };
  if (usableCores < logicalCores)
    return {
      name,
      state: 'note',
      found,
      why: 'an affinity mask keeps the others away',
      fix: 'start without taskset or cpuset',
    };
  return { name, state: 'ok', found };
}

function memory({ native, container }: Facts): Finding {
  const name = 'memory';
  const found = `${formatBytes(native.availableBytes)} available of ${formatBytes(native.memoryBytes)}`;
  if (container.memory !== undefined && container.memory < native.memoryBytes)
    return {
      name,
      state: 'note',
      found: `${found}; the control group allows ${formatBytes(container.memory)}`,
      fix: 'raise the memory limit of the container (docker run --memory, Kubernetes resources.limits.memory)',
    };
  return { name, state: 'ok', found };
}

function bandwidth({ bandwidth: { one, all }, native }: Facts): Finding {
  const found = `reads ${formatRate(all / 1e9)} GB/s with ${native.defaultThreads} threads, ${formatRate(one / 1e9)} GB/s with one`;
  return {
    name: 'memory bandwidth',
    state: 'ok',
    found,
    why: 'decode cannot be faster than the bytes of a token divided by this',
  };
}

/** Below this share of what the modules could give something is wrong: a slow mode, a neighbour, too few threads. */
const EXPECTED_SHARE = 0.5;
/** Bytes that a channel of 64 bits moves per transfer. */
const CHANNEL_BYTES = 8;

function modules({ dimms, bandwidth: { all } }: Facts): Finding | undefined {
  const name = 'memory modules';
  const filled = dimms.filter(({ bytes }) => bytes > 0);
  if (filled.length === 0)
    return { name, state: 'note', found: 'the firmware does not show them (needs root; virtual machines hide them)' };
  const speed = Math.min(...filled.map(({ transfersPerSecond }) => transfersPerSecond));
  const found = `${filled.length} of ${dimms.length} slots filled, ${formatRate(speed / 1e6)} MT/s`;
  const most = filled.length * speed * CHANNEL_BYTES;
  if (filled.length < dimms.length && dimms.length % filled.length === 0 && filled.length <= dimms.length / 2)
    return {
      name,
      state: 'note',
      found,
      why: 'each channel without a module takes its share of the bandwidth away; boards with two slots a channel are full at half of the slots',
      fix: `the manual says which slots are channels of their own; free: ${empty(dimms)}`,
    };
  if (speed > 0 && all < most * EXPECTED_SHARE)
    return {
      name,
      state: 'note',
      found: `${found}: at most ${formatRate(most / 1e9)} GB/s if each has a channel, ${formatRate(all / 1e9)} GB/s measured`,
      why: 'two modules may share a channel, too few threads may read, or something else reads too',
    };
  return { name, state: 'ok', found };
}

function empty(dimms: readonly Dimm[]): string {
  const slots = dimms.filter(({ bytes }) => bytes === 0).map(({ slot }) => slot || '?');
  return slots.slice(0, 8).join(', ') + (slots.length > 8 ? ', …' : '');
}

function hugePages({ host }: Facts): Finding | undefined {
  const name = 'huge pages';
  if (host.hugePages === undefined) return undefined;
  if (host.hugePages !== 'never') return { name, state: 'ok', found: `transparent huge pages: ${host.hugePages}` };
  return {
    name,
    state: 'problem',
    found: 'transparent huge pages are off',
    why: 'experts are read from all over the memory: with 4 KB pages each needs its own look-up',
    fix: 'echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled',
  };
}

function numa({ host, native }: Facts): Finding | undefined {
  if (host.numaBalancing === undefined || native.numaNodes < 2) return undefined;
  const name = 'NUMA balancing';
  if (!host.numaBalancing) return { name, state: 'ok', found: 'off' };
  return {
    name,
    state: 'problem',
    found: 'on',
    why: 'weights are already placed on the nodes that read them; the kernel moving them costs faults',
    fix: 'echo 0 | sudo tee /proc/sys/kernel/numa_balancing',
  };
}

function governor({ host }: Facts): Finding | undefined {
  if (host.governor === undefined) return undefined;
  const name = 'frequency';
  if (host.governor !== 'powersave') return { name, state: 'ok', found: `governor ${host.governor}` };
  return {
    name,
    state: 'note',
    found: 'governor powersave',
    why: 'with intel_pstate or amd_pstate in active mode it is fine; with acpi-cpufreq it holds the lowest frequency',
    fix: 'echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor',
  };
}

/** Share of a minute in which somebody waited. */
const BUSY = 0.2;

function pressure({ host }: Facts): Finding | undefined {
  if (host.cpuPressure === undefined) return undefined;
  const found = `${(host.cpuPressure * 100).toFixed(0)} % of the last minute something waited for a processor`;
  const name = 'other work';
  if (host.cpuPressure < BUSY) return { name, state: 'ok', found };
  return {
    name,
    state: 'problem',
    found,
    why: 'what is measured now is shared with it',
    fix: 'look at top; measure again when it is done',
  };
}

function swap({ host }: Facts): Finding | undefined {
  if (host.swap === undefined) return undefined;
  const { used, total } = host.swap;
  const name = 'swap';
  if (total === 0) return { name, state: 'ok', found: 'none' };
  const found = `${formatBytes(used)} of ${formatBytes(total)} in use`;
  if (used < 2 ** 30) return { name, state: 'ok', found };
  return {
    name,
    state: 'note',
    found,
    why: 'a model whose pages were swapped out reads them from the disk',
    fix: 'close what is large, or load with --load mmap',
  };
}

function disk({ disk: { folder, free, remote, rotational } }: Facts): Finding {
  const name = 'disk';
  const found = `${formatBytes(free)} free at ${folder}`;
  if (remote)
    return {
      name,
      state: 'note',
      found: `${found}, a network file system`,
      why: 'a model larger than memory would read experts over the network',
      fix: 'keep such a model on a local disk',
    };
  if (rotational)
    return {
      name,
      state: 'note',
      found: `${found}, a disk that calls itself rotating (virtual disks often do)`,
      why: 'a model larger than memory reads experts in small pieces',
      fix: 'keep such a model on an SSD',
    };
  return { name, state: 'ok', found };
}

function gpu({ host, checked, gpus: { cuda, problem, gpus } }: Facts): Finding {
  const name = 'GPU';
  const driver = [host.nvidia && `driver ${host.nvidia.version}`, cuda && `CUDA ${cuda}`].filter(Boolean).join(', ');
  if (problem !== '') {
    const [why, ...rest] = problem.replace(/^\[native\] /, '').split('; ');
    return { name, state: 'problem', found: driver || 'a driver that cannot be used', why: [why, ...rest.slice(0, -1)].join('; '), fix: rest.at(-1) }; // biome-ignore format: one thought a line
  }
  if (cuda === '') {
    if (host.nvidia === undefined)
      return { name, state: 'note', found: 'no NVIDIA driver; the CPU computes everything' };
    const named = host.nvidia.gpus.length > 0 ? `${host.nvidia.gpus.join(', ')}; ` : '';
    return {
      name,
      state: 'note',
      found: `${named}${driver}, whose library libcuda.so.1 is not here; the CPU computes everything`,
      fix: 'in a container: start it with the GPU (docker run --gpus all); else install the driver whole',
    };
  }
  const cards = gpus.map(({ device, name: card, capability, memoryBytes, freeBytes }) => {
    const free = freeBytes === undefined ? '' : `, ${formatBytes(freeBytes)} free`;
    return `${device} ${card} (compute capability ${capability}, ${formatBytes(memoryBytes)}${free})`;
  });
  const why = gpus.map(({ device, refused }) => {
    const known = checked?.get(device);
    if (refused !== '') return `${device} is not used: ${refused}`;
    if (known === undefined)
      return `${device}: the kernels are tested over an emulation, and have not run on this card yet`;
    return `${device}: ${known.right} checks of kernels on this card were right, the last on ${known.at.slice(0, 10)}`;
  });
  const usable = gpus.some(({ refused }) => refused === '');
  const fix = usable ? 'tandem doctor --gpu holds all kernels against the reference, on this card' : undefined;
  return { name, state: 'note', found: `${cards.join(', ')}; ${driver}`, why: why.join('; '), ...(fix && { fix }) };
}
