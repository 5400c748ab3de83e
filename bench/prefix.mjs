// Time to the first token of prompts that begin alike: the first one, the second one in the same process, and one after a restart.
//   npm run build && node bench/prefix.mjs MODEL [--shared 4096] [--own 32] [--threads N] [--record]
// Each process is a child of its own, so nothing but the folder of pages goes from one to the next. --record writes bench/results.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const SELF = fileURLToPath(import.meta.url);
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shared: { type: 'string', default: '4096' },
    own: { type: 'string', default: '32' },
    threads: { type: 'string' },
    record: { type: 'boolean', default: false },
    folder: { type: 'string' },
    asks: { type: 'string' },
  },
});
const [shared, own] = [values.shared, values.own].map(Number);
const [model] = positionals;
if (model === undefined) {
  console.error('[bench] a model is named; node bench/prefix.mjs MODEL [--shared 4096]');
  process.exit(1);
}

/** In a child: asks that begin alike, one after the other; seconds to the first token and what was cached. */
async function child() {
  const { load } = await import('../dist/index.js');
  const engine = await load(model, {
    contextLength: shared + own + 64,
    maxSequences: 1,
    prefixCache: { directory: values.folder, maxBytes: 2 ** 40 },
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  });
  const { vocabSize } = engine.info;
  const id = (i, salt) => 10 + ((i * 7919 + i * i * 31 + salt * 104729) % (vocabSize - 10));
  const answers = [];
  for (const ask of values.asks.split(',').map(Number)) {
    const prompt = Array.from({ length: shared + own }, (_, i) => id(i, i < shared ? 0 : ask));
    const began = performance.now();
    const { usage } = await engine.generate(prompt, { temperature: 0, maxTokens: 1, ignoreEos: true });
    answers.push({ seconds: (performance.now() - began) / 1000, cached: usage.cachedTokens });
  }
  await engine.dispose({ saveMs: 600_000 });
  console.log(JSON.stringify({ answers, disk: engine.stats().disk, execution: engine.info.execution }));
}

function inChild(folder, asks) {
  const passed = Object.entries({ shared, own, folder, asks, threads: values.threads }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  const { stdout, status } = spawnSync(process.execPath, [SELF, model, ...passed], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`a child ended with ${status}`);
  return JSON.parse(stdout);
}

if (values.asks !== undefined) await child();
else {
  const folder = mkdtempSync(join(tmpdir(), 'tandem-prefix-'));
  try {
    const first = inChild(folder, '1,2');
    const second = inChild(folder, '3');
    const [cold, warm] = first.answers;
    const [restarted] = second.answers;
    const result = {
      command: `node bench/prefix.mjs ${basename(model)} --shared ${shared} --own ${own}`,
      date: new Date().toISOString(),
      processor: cpus()[0].model,
      isa: first.execution.isa,
      threads: first.execution.threads,
      shared,
      own,
      cold,
      inMemory: { ...warm, share: warm.seconds / cold.seconds },
      afterRestart: { ...restarted, share: restarted.seconds / cold.seconds },
      pages: second.disk.pages,
      bytes: second.disk.bytes,
    };
    console.log(JSON.stringify(result, null, 2));
    if (values.record) {
      const name = `prefix-${basename(model).replace(/\.gguf$/, '')}-p${shared}.json`;
      writeFileSync(new URL(`results/${name}`, import.meta.url), `${JSON.stringify(result, null, 2)}\n`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
