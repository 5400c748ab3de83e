// Decode beside other busy processes, against decode alone: measured in turns, so that both see the same machine.
//   npm run build && node bench/busy.mjs MODEL [--rivals 1,2] [--threads N] [--prompt 64] [--generate 48] [--rounds 5] [--json]
//   --against node-llama-cpp   the peer of bench/peers, each run in a fresh load
// A rival is a process that computes and never waits. With as many rivals as cores, half of the speed is a fair share.
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { load } from '../dist/index.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rivals: { type: 'string', default: '1,2' },
    threads: { type: 'string' },
    prompt: { type: 'string', default: '64' },
    generate: { type: 'string', default: '48' },
    rounds: { type: 'string', default: '5' },
    against: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const model = positionals[0];
if (model === undefined) {
  console.error('[bench] a model is named; node bench/busy.mjs MODEL [--rivals 1,2]');
  process.exit(1);
}
const [prompt, generate, rounds] = [values.prompt, values.generate, values.rounds].map(Number);
const rivals = values.rivals.split(',').map(Number);
const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

const startRivals = (count) =>
  Array.from({ length: count }, () => spawn(process.execPath, ['-e', 'for(;;);'], { stdio: 'ignore' }));

/** What computes: a function from nothing to tokens per second. */
async function tandem() {
  const engine = await load(model, {
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
    contextLength: prompt + generate + 1,
    maxSequences: 1,
  });
  const ids = Array.from({ length: prompt }, (_, i) => 10 + ((i * 37) % (engine.info.vocabSize - 10)));
  const run = async () => {
    const { timings } = await engine.generate(ids, { temperature: 0, maxTokens: generate + 1, ignoreEos: true });
    return timings.tokensPerSecond;
  };
  return { threads: engine.info.execution.threads, run, end: () => engine.dispose() };
}

async function peer(threads) {
  const { runPeer } = await import('../dist/commands/bench/peer.js');
  const { modulusFor } = await import('../dist/commands/bench/token-ids.js');
  const modulus = modulusFor(4096);
  const signal = new AbortController().signal;
  const run = async () =>
    (await runPeer(values.against, { file: resolve(model), threads, prompt, generate, modulus, signal }))
      .decodeTokensPerSecond;
  return { threads, run, end: () => {} };
}

/** Idle and beside each number of rivals, in turns. */
async function measure({ run, end }) {
  const runs = new Map([0, ...rivals].map((count) => [count, []]));
  await run(); // warms up
  for (let round = 0; round < rounds; round++) {
    for (const [count, rates] of runs) {
      const processes = startRivals(count);
      try {
        rates.push(await run());
      } finally {
        for (const process of processes) process.kill('SIGKILL');
      }
    }
  }
  await end();
  const idle = median(runs.get(0));
  return [...runs].map(([count, rates]) => ({
    rivals: count,
    decodeTokensPerSecond: median(rates),
    shareOfIdle: median(rates) / idle,
    runs: rates,
  }));
}

const subject = await tandem();
const result = { model: model.split('/').at(-1), threads: subject.threads, tandem: await measure(subject) };
if (values.against !== undefined) result[values.against] = await measure(await peer(Number(subject.threads)));
if (values.json) console.log(JSON.stringify(result));
else {
  for (const [name, lines] of Object.entries(result).filter(([, value]) => Array.isArray(value)))
    for (const { rivals: count, decodeTokensPerSecond, shareOfIdle } of lines)
      console.log(
        `${name}\t${count} rivals\t${decodeTokensPerSecond.toFixed(2)} tok/s\t${(100 * shareOfIdle).toFixed(0)} % of idle`,
      );
}
