/**
 * Makes the packages that are published: `node scripts/pack.mjs [--out FOLDER]` (default: build/packages).
 *
 * `tandem` has no install script and needs no compiler: the native core of each platform is a package of its own, named as
 * an optional dependency, and npm takes the one that fits the machine. The checkout's package.json does not name them, so
 * that `npm install` in a clone asks no registry for what is built here. Prints one path a line.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values: flags } = parseArgs({ options: { out: { type: 'string' } } });
const out = resolve(flags.out ?? join(root, 'build', 'packages'));

const platformFile = join(root, 'dist', 'backend', 'native', 'platform.js');
for (const needed of [platformFile, join(root, 'web', 'dist'), join(root, 'build', 'tandem.node')]) {
  if (existsSync(needed)) continue;
  console.error(`[pack] what is packed is built first; there is no ${needed}; run npm run build`);
  process.exit(1);
}
const { CUDA_FILES, CUDA_PACKAGE, packageFor, packageName, PLATFORMS } = await import(platformFile);

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { name, version, description, license, type, engines, bin, exports, files, dependencies } = manifest;
const stage = mkdtempSync(join(tmpdir(), 'tandem-pack-'));
mkdirSync(out, { recursive: true });
try {
  const optionalDependencies = Object.fromEntries(PLATFORMS.map((platform) => [packageName(platform), version]));
  const main = { name, version, description, license, type, engines, bin, exports, files, dependencies };
  pack('main', { ...main, optionalDependencies }, [...files, 'README.md']);

  const libc = process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl';
  const here = PLATFORMS.find((p) => p.os === process.platform && p.cpu === process.arch && (p.libc ?? libc) === libc);
  if (here === undefined) throw new Error(`no package is made for ${process.platform} ${process.arch}`);
  const core = {
    name: packageFor(here),
    version,
    description: `The native core of ${name} for ${here.os} ${here.cpu}`,
    license,
    os: [here.os],
    cpu: [here.cpu],
    ...(here.libc ? { libc: [here.libc] } : {}),
    main: 'tandem.node',
    files: ['tandem.node'],
  };
  pack('core', core, [['build/tandem.node', 'tandem.node']]);

  // Where `npm run build:cuda` made them. Nothing depends on it: who has a card installs it.
  if (existsSync(join(root, 'build', CUDA_FILES.kernels))) {
    const files = Object.values(CUDA_FILES);
    const cuda = {
      name: CUDA_PACKAGE,
      version,
      description: `The kernels of ${name} for NVIDIA GPUs, compute capability 8.0 and later`,
      license,
      os: ['linux'],
      cpu: ['x64'],
      files,
    };
    pack(
      'cuda',
      cuda,
      files.map((file) => [join('build', file), file]),
    );
  }
} finally {
  rmSync(stage, { recursive: true });
}

/** Copies what a package holds into a folder of its own and lets npm pack it. */
function pack(folder, content, paths) {
  const at = join(stage, folder);
  mkdirSync(at);
  writeFileSync(join(at, 'package.json'), `${JSON.stringify(content, null, 2)}\n`);
  for (const path of [...paths, 'LICENSE']) {
    const [from, to] = Array.isArray(path) ? path : [path, path];
    cpSync(join(root, from), join(at, to), { recursive: true });
  }
  const packed = spawnSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', out], {
    cwd: at,
    encoding: 'utf8',
  });
  if (packed.status !== 0) throw new Error(packed.stderr);
  console.log(join(out, JSON.parse(packed.stdout)[0].filename));
}
