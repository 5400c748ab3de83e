/**
 * Builds `build/tandem-cuda.fatbin`, the kernels of NVIDIA GPUs: `node scripts/build-cuda.mjs [--arch 80,90] [--report] [--check]`.
 *
 * Default: every architecture from 8.0 on, and PTX of the oldest for cards that are younger than the compiler. Where there is
 * no nvcc (PATH, CUDA_HOME, /usr/local/cuda) it says so in one line and ends with 0: nothing else needs the file. It is not
 * part of an install. `--report`: registers, stack (arrays that are no registers) and spills of each kernel as ptxas says them, the
 * worst first. `--check`: compiled with little optimization, in a third of the time, and thrown away: do they compile everywhere?
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const ARCHITECTURES = ['80', '86', '89', '90', '100', '120'];
const { values: flags } = parseArgs({
  options: { arch: { type: 'string' }, report: { type: 'boolean' }, check: { type: 'boolean' } },
});
const folder = flags.check ? mkdtempSync(join(tmpdir(), 'tandem-cuda-')) : join(root, 'build');
const out = join(folder, 'tandem-cuda.fatbin');

function findCompiler() {
  const folders = [
    ...(process.env.CUDA_HOME ? [join(process.env.CUDA_HOME, 'bin')] : []),
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/local/cuda/bin',
  ];
  return folders.map((folder) => join(folder, 'nvcc')).find(existsSync);
}

/** Kernels with their registers and spilled bytes, from the words of `ptxas -v`. */
function usage(text) {
  const kernels = [];
  for (const line of text.split('\n')) {
    const name = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (name) kernels.push({ name: `${name[1]} ${name[2]}`, spilled: 0, stack: 0, registers: 0 });
    const stack = /(\d+) bytes stack frame/.exec(line);
    if (stack && kernels.length > 0) kernels.at(-1).stack = Number(stack[1]);
    const spilled = /(\d+) bytes spill stores/.exec(line);
    if (spilled && kernels.length > 0) kernels.at(-1).spilled = Number(spilled[1]);
    const registers = /Used (\d+) registers/.exec(line);
    if (registers && kernels.length > 0) kernels.at(-1).registers = Number(registers[1]);
  }
  return kernels.sort((a, b) => b.spilled - a.spilled || b.stack - a.stack || b.registers - a.registers);
}

const nvcc = findCompiler();
if (nvcc === undefined) {
  console.error('[cuda] no nvcc in PATH, CUDA_HOME or /usr/local/cuda; the kernels of GPUs are left out');
  process.exit(0);
}
const architectures = flags.arch?.split(',') ?? ARCHITECTURES;
const oldest = architectures[0];
mkdirSync(dirname(out), { recursive: true });
const started = Date.now();
const { status, stderr } = spawnSync(
  nvcc,
  [
    '-std=c++20',
    '-O3',
    '-fatbin',
    '--threads',
    String(availableParallelism()),
    '-I',
    join(root, 'native'),
    // One front end for all: nothing in the kernels asks for more than the oldest has.
    '-gencode',
    `arch=compute_${oldest},code=[${architectures.map((arch) => `sm_${arch}`).join(',')},compute_${oldest}]`,
    '-Xfatbin',
    '-compress-all',
    '-Werror',
    'all-warnings',
    ...(flags.report ? ['-Xptxas', '-v'] : []),
    ...(flags.check ? ['-Xptxas', '-O1'] : []),
    '-o',
    out,
    join(root, 'native', 'cuda', 'kernels', 'kernels.cu'),
  ],
  { encoding: 'utf8', maxBuffer: 1 << 28 },
);
if (flags.check) rmSync(folder, { recursive: true });
if (status !== 0) {
  console.error(stderr);
  console.error('[cuda] the kernels do not compile; the lines above say where');
  process.exit(1);
}
const seconds = ((Date.now() - started) / 1000).toFixed(0);
if (flags.check) {
  console.error(`[cuda] the kernels compile for sm_${architectures.join(', sm_')}; ${seconds} s`);
  process.exit(0);
}
// Which drivers can run them (src/backend/native/gpus.ts).
const release = /release (\d+\.\d+)/.exec(spawnSync(nvcc, ['--version'], { encoding: 'utf8' }).stdout)?.[1];
writeFileSync(join(dirname(out), 'tandem-cuda.json'), `${JSON.stringify({ cuda: release, architectures })}\n`);
if (flags.report) {
  for (const { name, registers, stack, spilled } of usage(stderr))
    console.log(`${name}: ${registers} registers, ${stack} bytes of stack, ${spilled} bytes spilled`);
}
const megabytes = (statSync(out).size / 2 ** 20).toFixed(1);
console.error(`[cuda] build/tandem-cuda.fatbin: sm_${architectures.join(', sm_')}; ${megabytes} MiB in ${seconds} s`);
