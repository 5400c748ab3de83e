// Races Tandem against node-llama-cpp on the same file and threads, in turn, and records medians and their ratio:
//   (cd bench/peers && npm install) && npm run build && node bench/against.mjs FILE [threads=2] [prompt=64] [generate=32] [rounds=3]
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

const [file, threads = '2', prompt = '64', generate = '32', rounds = '3'] = process.argv.slice(2);
if (!file) {
  console.error('usage: node bench/against.mjs FILE [threads] [prompt] [generate] [rounds]');
  process.exit(2);
}
const here = fileURLToPath(new URL('.', import.meta.url));
const idle = loadavg()[0];
const runs = { tandem: [], 'node-llama-cpp': [] };
for (let round = 0; round < Number(rounds); round++) {
  for (const engine of Object.keys(runs)) {
    const child = spawnSync(process.execPath, [`${here}peers/${engine}.mjs`, file, threads, prompt, generate], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = child.stdout.trim().split('\n').at(-1);
    console.log(line);
    runs[engine].push(JSON.parse(line));
  }
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const figures = Object.fromEntries(
  Object.entries(runs).map(([engine, list]) => [
    engine,
    {
      prefillTokensPerSecond: median(list.map((run) => run.prefillTokensPerSecond)),
      decodeTokensPerSecond: median(list.map((run) => run.decodeTokensPerSecond)),
    },
  ]),
);
const git = (...args) => execFileSync('git', args, { cwd: here, encoding: 'utf8' }).trim();
const result = {
  what: 'Tandem against node-llama-cpp, same file, threads and token ids, in turn; medians',
  command: `node bench/against.mjs ${basename(file)} ${threads} ${prompt} ${generate} ${rounds}`,
  date: new Date().toISOString(),
  commit: git('rev-parse', '--short', 'HEAD'),
  machine: { cpu: cpus()[0].model, logicalCores: cpus().length, loadAverageBefore: idle },
  file: { name: basename(file), bytes: statSync(file).size },
  figures,
  ratio: {
    prefill: figures.tandem.prefillTokensPerSecond / figures['node-llama-cpp'].prefillTokensPerSecond,
    decode: figures.tandem.decodeTokensPerSecond / figures['node-llama-cpp'].decodeTokensPerSecond,
  },
  runs,
};
mkdirSync(`${here}results`, { recursive: true });
const path = `${here}results/against-${basename(file, '.gguf')}-t${threads}.json`;
writeFileSync(path, `${JSON.stringify(result, null, 2)}\n`);
console.log(`${path}\n`, result.figures, result.ratio);
