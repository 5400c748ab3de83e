// Predictions against measurement: synthetic models of true shapes, each planned from its headers and then run.
//   npm run build && node bench/predict.mjs [--only NAME,…] [--dir /tmp] [--prompt 512] [--generate 64] [--rounds 3] [--model FILE]… [--json] [--record]
// A shared machine's memory gives twice as much in one second as in the next. So probe and measurement take turns, and their medians
// are held against each other. Files are at most 6 GB and are deleted afterwards.
// --record writes bench/results/predictions.json.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { PUBLIC_CONFIGS } from '../dist/models/public-configs.js';

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    dir: { type: 'string', default: '/tmp' },
    prompt: { type: 'string', default: '512' },
    generate: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '3' },
    model: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
  },
});

/** [preset, mix, layers, changes of its description] */
const SHAPES = {
  'v2-lite-q4_k_m': ['deepseek-v2-lite', 'q4_k_m', 9],
  'v2-lite-q8_0': ['deepseek-v2-lite', 'q8_0', 8],
  'v2-lite-bf16': ['deepseek-v2-lite', 'bf16', 4],
  'qwen3-30b-q4_k_m': ['qwen3-30b-a3b', 'q4_k_m', 10],
  'qwen3-30b-q8_0': ['qwen3-30b-a3b', 'q8_0', 7],
  'qwen3-30b-bf16': ['qwen3-30b-a3b', 'bf16', 4],
  // A quarter of the experts, so that layers of true width fit.
  'v3-q4_k_m': ['deepseek-v3', 'q4_k_m', 5, { n_routed_experts: 64 }],
  'v3-q8_0': ['deepseek-v3', 'q8_0', 4, { n_routed_experts: 48, n_group: 6 }],
  'v3-iq2_xxs': ['deepseek-v3', 'iq2_xxs', 5, { n_routed_experts: 96 }],
  'gpt-oss-mxfp4': ['gpt-oss-20b', 'mxfp4', 8],
};
const LIMITS = { decode: 0.2, prefill: 0.3 };

const CLI = fileURLToPath(new URL('../dist/cli.js', import.meta.url));

/** The JSON that a command prints. */
function tandem(...args) {
  const { status, stdout } = spawnSync(process.execPath, [CLI, ...args, '--json'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`[bench] tandem ${args.join(' ')} ended with ${status}`);
  return JSON.parse(stdout);
}

function made(name) {
  const [preset, mix, layers, changes] = SHAPES[name];
  const config = join(values.dir, `predict-${name}.json`);
  const types = PUBLIC_CONFIGS[preset].layer_types?.slice(0, layers);
  writeFileSync(
    config,
    JSON.stringify({ ...PUBLIC_CONFIGS[preset], ...changes, ...(types && { layer_types: types }) }),
  );
  const file = join(values.dir, `predict-${name}.gguf`);
  try {
    tandem('synth', config, file, '-q', mix, '--layers', String(layers));
  } finally {
    rmSync(config);
  }
  return file;
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

/** Probe and measurement by turns, each of its own process; medians of both are held against each other. */
function held(name, file) {
  const { prompt, generate } = values;
  const plans = [];
  const runs = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    plans.push(tandem('plan', file, '--prompt', prompt, '--fresh'));
    const lengths = ['--prompt', prompt, '--generate', generate];
    runs.push(tandem('bench', 'model', file, ...lengths, '--rounds', '1', '--no-ceiling'));
  }
  const of = (plan) => plan.quants[0].plan;
  const phase = (which) => {
    const predictions = plans.map((plan) => of(plan)[which].tokensPerSecond.expected);
    const measurements = runs.map((run) => run[`${which}TokensPerSecond`]);
    const [predicted, measured] = [median(predictions), median(measurements)];
    const ratio = predicted / measured;
    return { predicted, measured, ratio, holds: Math.abs(ratio - 1) <= LIMITS[which], predictions, measurements };
  };
  const [plan] = plans.map(of);
  return {
    name,
    weightBytes: plans[0].quants[0].sizes.weightBytes,
    readBandwidth: plans.map(({ machine }) => machine.memory.bandwidth),
    loadAverage: runs.map(({ machine }) => machine.loadAverage),
    decode: phase('decode'),
    prefill: phase('prefill'),
    parts: { decode: plan.decode.parts, prefill: plan.prefill.parts },
    rows: plan.prefill.rows,
    machine: runs[0].machine,
    commit: runs[0].commit,
  };
}

const wanted = values.only?.split(',') ?? (values.model.length > 0 ? [] : Object.keys(SHAPES));
const unknown = wanted.filter((name) => SHAPES[name] === undefined);
if (unknown.length > 0) {
  console.error(`[bench] there is no shape ${unknown.join(', ')}; known are ${Object.keys(SHAPES).join(', ')}`);
  process.exit(1);
}
const results = [];
const tell = ({ name, decode, prefill }) =>
  [
    name.padEnd(20),
    ...[decode, prefill].flatMap(({ predicted, measured, ratio, holds }) => [
      predicted.toFixed(1).padStart(9),
      measured.toFixed(1).padStart(9),
      `${ratio.toFixed(2)}${holds ? ' ' : '!'}`.padStart(7),
    ]),
  ].join(' ');
const log = values.json ? console.error : console.log;
log(
  `${''.padEnd(20)} ${'decode'.padStart(9)} ${'measured'.padStart(9)} ${'ratio'.padStart(6)}  ${'prefill'.padStart(9)} ${'measured'.padStart(9)} ${'ratio'.padStart(6)}`,
);
for (const [name, file] of [
  ...values.model.map((path) => [basename(path, '.gguf'), path]),
  ...wanted.map((name) => [name]),
]) {
  const path = file ?? made(name);
  try {
    results.push(held(name, path));
  } finally {
    if (file === undefined) rmSync(path, { force: true });
  }
  log(tell(results.at(-1)));
}
if (values.json) console.log(JSON.stringify(results));
if (values.record) {
  const [{ machine, commit }] = results;
  const record = {
    command: ['node bench/predict.mjs', ...process.argv.slice(2).map((word) => basename(word))].join(' '),
    date: new Date().toISOString(),
    commit,
    machine,
    result: results.map(({ machine: _, commit: __, ...rest }) => rest),
  };
  mkdirSync(join('bench', 'results'), { recursive: true });
  writeFileSync(join('bench', 'results', 'predictions.json'), `${JSON.stringify(record, null, 2)}\n`);
}
const broken = results.filter(({ decode, prefill }) => !decode.holds || !prefill.holds);
log(
  `${results.length - broken.length} of ${results.length} within ±${LIMITS.decode * 100} % (decode) and ±${LIMITS.prefill * 100} % (prefill)`,
);
process.exitCode = broken.length > 0 ? 1 : 0;
