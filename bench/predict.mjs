// Predictions against measurement: synthetic models of true shapes, each planned from its headers and then run.
//   npm run build && node bench/predict.mjs [--only NAME,…] [--dir /tmp] [--prompt 512] [--generate 64] [--rounds 3] [--model FILE]… [--json] [--record]
// A shared machine's memory gives twice as much in one second as in the next. So what it gives is read before and after the probe
// of the kernels and again after the measurement (medians of some seconds of reading); the probe is moved from the mean around it to
// the mean around the measurement, and that is held against the measurement. Files are at most 6 GB and are deleted afterwards.
// --record writes bench/results/predictions.json.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadNative } from '../dist/backend/native/load.js';
import { PUBLIC_CONFIGS } from '../dist/models/public-configs.js';
import { atBandwidth } from '../dist/placement/at-bandwidth.js';

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

const READ_BYTES = 1 << 30;
const READINGS = 5;

/** Bytes per second that the threads of a model read now: the median of some seconds of it. */
function bandwidthNow() {
  const readings = Array.from({ length: READINGS }, () => loadNative().readBandwidth(0, READ_BYTES).bytesPerSecond);
  return readings.sort((a, b) => a - b)[READINGS >> 1];
}

const mean = (a, b) => (a + b) / 2;

/** The plan of a file on a machine of that profile. */
function planned(file, profile) {
  const path = join(values.dir, `predict-machine-${process.pid}.json`);
  writeFileSync(path, JSON.stringify(profile));
  try {
    return tandem('plan', file, '--prompt', values.prompt, '--machine', path).quants[0].plan;
  } finally {
    rmSync(path);
  }
}

/** Reads, probes, reads, measures, reads; predicts from what was read around the measurement. */
function held(name, file) {
  const { prompt, generate, rounds } = values;
  const first = bandwidthNow();
  const probed = tandem('plan', file, '--prompt', prompt, '--fresh');
  const before = bandwidthNow();
  const run = tandem(
    'bench',
    'model',
    file,
    '--prompt',
    prompt,
    '--generate',
    generate,
    '--rounds',
    rounds,
    '--no-ceiling',
  );
  const after = bandwidthNow();
  const { machine } = probed;
  const profile = { ...machine, memory: { ...machine.memory, bandwidth: mean(first, before) } };
  const plan = planned(file, atBandwidth(profile, mean(before, after)));
  const phase = (which, measured) => {
    const predicted = plan[which].tokensPerSecond.expected;
    const asProbed = probed.quants[0].plan[which].tokensPerSecond.expected;
    const ratio = predicted / measured;
    return { predicted, asProbed, measured, ratio, holds: Math.abs(ratio - 1) <= LIMITS[which] };
  };
  return {
    name,
    weightBytes: probed.quants[0].sizes.weightBytes,
    readBandwidth: { first, before, after },
    loadAverage: run.machine.loadAverage,
    decode: phase('decode', run.decodeTokensPerSecond),
    prefill: phase('prefill', run.prefillTokensPerSecond),
    parts: { decode: plan.decode.parts, prefill: plan.prefill.parts },
    rows: plan.prefill.rows,
    machine: run.machine,
    commit: run.commit,
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
