/** `tandem doctor`: what is this machine, is it set up well, and, with a model, is its speed normal? */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import { nativeBackend } from '../backend/native/backend.ts';
import { listGpus } from '../backend/native/gpus.ts';
import { loadNative, nativeProblem } from '../backend/native/load.ts';
import { checkedOn } from '../engine/kept-checks.ts';
import { openCheckpoint } from '../formats/open.ts';
import { cacheFolder } from '../hub/settings.ts';
import { buildProgram } from '../models/index.ts';
import { containerLimits, type ReadText } from '../placement/container.ts';
import { lower } from '../placement/lower.ts';
import { nativeMachine } from '../placement/machine.ts';
import { PAGE_TOKENS } from '../program/program.ts';
import { readBandwidth } from './bench/ceiling.ts';
import { describeMachine } from './bench/report.ts';
import { type Facts, findings } from './doctor/checks.ts';
import { parseDimms } from './doctor/dimms.ts';
import type { Finding } from './doctor/finding.ts';
import { kernelFindings, type TriedGpu, tryKernels } from './doctor/gpu-kernels.ts';
import { hostFacts } from './doctor/host.ts';
import { measureSpeed, PARTS, type Speed } from './doctor/speed.ts';
import { shareOf, verdict } from './doctor/verdict.ts';
import { localPath } from './model-name.ts';
import { positive, withCpu, withModelPath } from './options.ts';
import { formatBytes, formatRate, ProgressBar, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  threads?: number;
  isa?: string;
  exact?: boolean;
  prompt: number;
  tokens: number;
  gpu?: boolean;
  json?: boolean;
}

export function addDoctor(cli: Command): void {
  const command = cli
    .command('doctor')
    .description('is this machine set up well? with a model: is its speed normal, and if not, why?')
    .argument('[model]', 'measure with this model (default: only look at the machine)');
  withCpu(withModelPath(command))
    .option('--prompt <n>', 'tokens before those that are measured', positive, 64)
    .option('--tokens <n>', 'tokens to measure', positive, 32)
    .option('--gpu', 'try all kernels of the GPUs on small random models: are they right on this card?')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem doctor                         the machine alone, some seconds
  tandem doctor --gpu                   and what its GPUs compute
  tandem doctor --model model.gguf      is my speed normal?
  tandem doctor model.gguf --prompt 8192   and with a long context`,
    )
    .action(run);
}

async function run(model: string | undefined, flags: Flags): Promise<void> {
  const problem = nativeProblem();
  if (problem) throw problem;
  const named = model ?? flags.model;
  const path = named === undefined ? undefined : await localPath(flags, model);
  if (path !== undefined) await (await openCheckpoint(path)).close(); // what is wrong with it is told before measuring
  const facts = await gather(flags.threads ?? 0);
  const machine = findings(facts);
  if (!flags.json) process.stdout.write(`${render(machine)}\n`);
  const tried = flags.gpu ? await tryGpus(facts) : undefined;
  const kernels = tried && kernelFindings(tried);
  if (kernels && !flags.json) process.stdout.write(`${render(kernels)}\n`);
  if (kernels?.some(({ state }) => state === 'problem')) process.exitCode = 1;
  const measured = path === undefined ? undefined : await measure(path, flags);
  if (!flags.json) {
    if (measured) process.stdout.write(`\n${renderSpeed(measured.speed)}\n\n${render(measured.answer)}\n`);
    else process.stdout.write('\ntandem doctor --model FILE says whether its speed is normal\n');
    return;
  }
  const { native, gpus, host, container, bandwidth } = facts;
  const speed = measured && { ...measured.speed, share: measured.share, findings: measured.answer };
  process.stdout.write(
    `${JSON.stringify({ native, gpus, host, container, bandwidth, findings: [...machine, ...(kernels ?? [])], tried, speed }, null, 2)}\n`,
  );
}

async function tryGpus({ gpus: { gpus } }: Facts): Promise<TriedGpu[]> {
  const tried: TriedGpu[] = [];
  for (const gpu of gpus.filter(({ refused }) => refused === '')) {
    const bar = new ProgressBar(`trying ${gpu.device}`);
    try {
      tried.push(await tryKernels(gpu, (done, total) => bar.update(done, total, 'models')));
    } finally {
      bar.end();
    }
  }
  return tried;
}

const read: ReadText = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

const FORCING = ['TANDEM_ISA', 'TANDEM_TILES', 'TANDEM_NUMA', 'TANDEM_OVERSUBSCRIBE'];

async function gather(threads: number): Promise<Facts> {
  const folder = existing(cacheFolder());
  const { bavail, bsize } = await statfs(folder);
  const described = describeMachine();
  return {
    native: loadNative().machine(),
    gpus: listGpus({ free: true }),
    checked: await checkedOn(),
    host: hostFacts(read, list),
    container: containerLimits(read),
    dimms: dimms(),
    bandwidth: {
      one: readBandwidth(1, described).bytesPerSecond,
      all: readBandwidth(threads, described).bytesPerSecond,
    },
    disk: { folder, free: bavail * bsize, ...deviceOf(folder) },
    forced: FORCING.filter((name) => process.env[name]).map((name) => `${name}=${process.env[name]}`),
  };
}

/** The folder itself, or the nearest above it that is there: where it would be made. */
function existing(folder: string): string {
  const path = resolve(folder);
  return isFolder(path) || dirname(path) === path ? path : existing(dirname(path));
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false; // part of the path is a file, or nobody may look into it
  }
}

function dimms() {
  try {
    return parseDimms(readFileSync('/sys/firmware/dmi/tables/DMI'));
  } catch {
    return []; // not root, or a machine without firmware tables
  }
}

const REMOTE = new Set([
  'nfs',
  'nfs4',
  'cifs',
  'smb3',
  'fuse.sshfs',
  'ceph',
  'lustre',
  'glusterfs',
  'fuse.glusterfs',
  '9p',
]);

/** Of the mount that a folder lies on: the last one whose device it has. */
function deviceOf(folder: string): { remote: boolean; rotational?: boolean } {
  const { dev } = statSync(folder);
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  const mounts = (read('/proc/self/mountinfo') ?? '').split('\n').map((line) => line.split(' '));
  const mount = mounts.findLast((fields) => fields[2] === device);
  const type = mount?.[mount.indexOf('-') + 1] ?? '';
  const rotational =
    read(`/sys/dev/block/${device}/queue/rotational`) ?? read(`/sys/dev/block/${device}/../queue/rotational`);
  return { remote: REMOTE.has(type), ...(rotational === undefined ? {} : { rotational: rotational.trim() === '1' }) };
}

async function measure(path: string, flags: Flags) {
  const { threads, isa, exact, prompt, tokens } = flags;
  const machine = describeMachine(isa);
  const checkpoint = await openCheckpoint(path);
  const bar = new ProgressBar('measuring');
  try {
    const { program } = await buildProgram(checkpoint, { contextLength: prompt + tokens });
    await using executable = await nativeBackend().prepare(lower(program, nativeMachine(isa), { exact }), checkpoint, {
      pages: Math.ceil((prompt + tokens) / PAGE_TOKENS),
      maxRows: prompt,
      maxOutputs: 1,
      threads,
      isa,
      onProgress: (loaded, total) => bar.update(loaded, total),
    });
    const before = readBandwidth(threads ?? 0, machine);
    const onToken = (done: number) => bar.update(done, tokens, 'tokens');
    const speed = await measureSpeed(executable, { prompt, tokens, read, onToken });
    bar.end();
    const after = readBandwidth(threads ?? 0, machine);
    const ceiling = {
      bandwidth: Math.max(before.bytesPerSecond, after.bytesPerSecond),
      threads: Number(executable.description.threads),
      defaultThreads: loadNative().machine().defaultThreads,
    };
    return { speed, share: shareOf(speed, ceiling), answer: verdict(speed, ceiling) };
  } finally {
    bar.end();
    await checkpoint.close();
  }
}

const SIGNS = { ok: ['green', '✓'], note: ['yellow', '·'], problem: ['red', '✗'] } as const;

function render(all: readonly Finding[]): string {
  const width = Math.max(...all.map(({ name }) => name.length));
  return all
    .flatMap(({ name, state, found, why, fix }) => {
      const [style, sign] = SIGNS[state];
      const more = [why, fix && `→ ${fix}`].filter((line) => line !== undefined && line !== '');
      return [
        `${paint(style, sign)} ${name.padEnd(width)}  ${found}`,
        ...more.map((line) => `  ${' '.repeat(width)}  ${paint('dim', line!)}`),
      ];
    })
    .join('\n');
}

function renderSpeed({ parts, bytes }: Speed): string {
  const total = PARTS.reduce((sum, part) => sum + parts[part].milliseconds, 0);
  const rows = PARTS.filter((part) => parts[part].milliseconds > 0).map((part) => {
    const { milliseconds, bytes: read } = parts[part];
    const rate = read > 0 ? `${formatRate(read / milliseconds / 1e6)} GB/s` : '';
    return [
      part,
      `${milliseconds.toFixed(2)} ms`,
      `${((milliseconds / total) * 100).toFixed(0)} %`,
      read > 0 ? formatBytes(read) : '',
      rate,
    ];
  });
  return table([['one token', `${total.toFixed(2)} ms`, '', formatBytes(bytes), ''], ...rows], 'lrrrr');
}
