// One run of Tandem, the same work as node-llama-cpp.mjs: node tandem.mjs FILE THREADS PROMPT GENERATE → one JSON line.
import { load } from '../../dist/index.js';

const [file, threads, prompt, generate] = process.argv.slice(2);
const engine = await load(file, { threads: Number(threads), contextLength: Number(prompt) + Number(generate) + 64 });
const ids = Array.from({ length: Number(prompt) }, (_, i) => ((i * 37 + 11) % 1000) + 3);
const started = performance.now();
const result = await engine.generate(ids, { temperature: 0, maxTokens: Number(generate) + 1, ignoreEos: true });
const ended = performance.now();
const first = started + result.timings.timeToFirstTokenMs;
console.log(
  JSON.stringify({
    engine: 'tandem',
    prefillTokensPerSecond: Number(prompt) / ((first - started) / 1000),
    decodeTokensPerSecond: (result.usage.completionTokens - 1) / ((ended - first) / 1000),
  }),
);
await engine.dispose();
