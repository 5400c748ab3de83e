// Many clients at once against the real `tandem serve`: every answer is the one the request gets alone, no page is lost,
// memory stays flat, /v1/models answers at once, and a full queue says when to come again.
//   npm run build && node bench/load.mjs [MODEL] [--requests 1000] [--clients 32] [--rounds 5] [--seed 1] [--json] [--record]
//   node bench/load.mjs MODEL --streams 1,2,4,8    tokens per second of so many parallel answers
// Ends with 1 where a check fails. Checks of time and memory are left out with --untimed.
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { defaultModelPath, load } from '../dist/engine/load.js';
import { play } from './load/clients.mjs';
import { randomFrom } from './load/random.mjs';
import { report } from './load/record.mjs';
import { answerOf, makePool } from './load/requests.mjs';
import { startServer } from './load/server.mjs';
import { measureStreams, renderStreams } from './load/streams.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    requests: { type: 'string', default: '1000' },
    clients: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '5' },
    seed: { type: 'string', default: '1' },
    streams: { type: 'string' },
    prompt: { type: 'string', default: '32' },
    generate: { type: 'string', default: '64' },
    threads: { type: 'string' },
    exact: { type: 'boolean', default: false },
    untimed: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
  },
});
const model = positionals[0] ?? defaultModelPath();
/** Few pages and places, so that requests wait, push each other out and share. */
const CONTEXT = 1024;
const PARALLEL = 8;
const PAGES = 20;
/** What is asked: p99, and how much the memory of the server's own may move. */
const MODELS_P99_MS = 100;
const FLAT_BYTES = 48 << 20;

const [requests, clients, rounds, seed] = [values.requests, values.clients, values.rounds, values.seed].map(Number);

const flags = { json: values.json, record: values.record };

if (values.streams === undefined) await loadTest();
else {
  const streams = values.streams.split(',').map(Number);
  const [prompt, generate] = [values.prompt, values.generate].map(Number);
  const threads = values.threads && Number(values.threads);
  const result = await measureStreams(model, { streams, prompt, generate, rounds, threads, exact: values.exact });
  report(flags, `streams-${result.model.replace(/\.gguf$/, '')}-t${result.threads}`, result, renderStreams(result));
}

/** Answers of the pool, one at a time in an engine of its own, and the bytes of a cache of two contexts. */
async function loneAnswers(pool) {
  const engine = await load(model, { exact: true, contextLength: CONTEXT, maxSequences: 1, prefixCache: false });
  try {
    const answers = [];
    for (const { alone } of pool) answers.push(answerOf(await alone(engine)));
    const { totalPages } = engine.stats();
    return { answers, kvBytes: Math.ceil((engine.info.kv / totalPages) * (PAGES + 0.5)) };
  } finally {
    await engine.dispose();
  }
}

async function loadTest() {
  const random = randomFrom(seed);
  const pool = makePool(random, Math.min(150, Math.ceil(requests / 4)));
  const { answers, kvBytes } = await loneAnswers(pool);
  const queue = Math.max(2, (clients - PARALLEL) >> 1); // the other half meets a full one
  const server = await startServer([
    model,
    '--exact',
    ...['--context', CONTEXT, '--parallel', PARALLEL, '--max-queue', queue, '--kv-budget', `${kvBytes}`].map(String),
  ]);
  const tally = {};
  const { wrong, memory, usage, preemptions, seconds, probed, code } = await rounded(server, () =>
    play({ url: server.url, pool, answers, random, tally }),
  );
  const times = probed.times.sort((a, b) => a - b);
  const p99 = times[Math.floor(times.length * 0.99)];
  const grown = memory[memory.length - 1] - memory[Math.min(1, rounds - 1)];
  const checks = [
    ['every answer is the one it gets alone, every refusal is clear', wrong.length === 0, wrong.slice(0, 5)],
    ['no page is lost or owned twice once nothing runs', usage.every((share) => share === 0), usage],
    ['pages ran short on the way', preemptions > 0 || untested(requests), preemptions],
    ['the queue was full at times', (tally.refused ?? 0) > 0 || untested(requests), tally.refused],
    ['/v1/models always answers', probed.failures === 0 && times.length > 0, probed.failures],
    ['the server logged no fault', !/"level":(?:50|60|"error")/.test(server.said()), server.said().slice(-500)],
    ['the server ended in order', code === 0, code],
    ...(values.untimed
      ? []
      : [
          [`p99 of /v1/models under ${MODELS_P99_MS} ms`, p99 < MODELS_P99_MS, p99],
          ['memory is flat from the second round on', grown < FLAT_BYTES, grown],
        ]),
  ].map(([what, ok, saw]) => ({ what, ok, saw }));
  const result = {
    model: basename(model),
    requests,
    clients,
    rounds,
    seed,
    seconds,
    manners: tally,
    preemptions,
    modelsMs: { asked: times.length, median: times[times.length >> 1], p99, worst: times[times.length - 1] },
    memoryMegabytes: memory.map((bytes) => Math.round(bytes / 2 ** 20)),
    checks,
  };
  const text = [
    JSON.stringify({ ...result, checks: undefined }),
    ...checks.map(({ what, ok, saw }) => `${ok ? 'ok   ' : 'WRONG'} ${what}${ok ? '' : `: ${JSON.stringify(saw)}`}`),
  ].join('\n');
  report(flags, `load-${requests}x${clients}`, result, text);
  if (checks.some(({ ok }) => !ok)) process.exitCode = 1;
}

/** Rounds of requests while a probe asks for the models; the server is ended whatever happens. */
async function rounded(server, one) {
  const probe = new Worker(new URL('./load/probe.mjs', import.meta.url), {
    workerData: { url: server.url, everyMs: 20 },
  });
  const [wrong, memory, usage] = [[], [], []];
  const begin = performance.now();
  let preemptions = 0;
  try {
    for (let round = 0; round < rounds; round++) {
      let left = Math.ceil(requests / rounds);
      const client = async () => {
        while (left-- > 0) {
          const problem = await one();
          if (problem !== undefined) wrong.push(problem);
        }
      };
      await Promise.all(Array.from({ length: clients }, client));
      usage.push(await drained(server));
      memory.push(server.memory());
      [preemptions] = await server.gauges('tandem_preemptions_total');
    }
    const seconds = (performance.now() - begin) / 1000;
    const probed = await new Promise((resolve) => {
      probe.on('message', resolve);
      probe.postMessage('stop');
    });
    const { code } = await server.stop();
    return { wrong, memory, usage, preemptions, seconds, probed, code };
  } finally {
    await probe.terminate();
    await server.stop();
  }
}

/** The share of pages in use once nobody runs or waits any more: 0, or pages are lost (above) or free twice (below). */
async function drained(server) {
  for (let tries = 0; ; tries++) {
    const [running, waiting, usage] = await server.gauges(
      'tandem_num_requests_running',
      'tandem_num_requests_waiting',
      'tandem_kv_cache_usage_ratio',
    );
    if ((running === 0 && waiting === 0) || tries > 200) return running + waiting === 0 ? usage : Number.NaN;
    await sleep(50);
  }
}

/** Few requests may meet no shortage. */
function untested(count) {
  return count < 500;
}
