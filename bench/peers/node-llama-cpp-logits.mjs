// Logits of node-llama-cpp: node node-llama-cpp-logits.mjs JOB.json, where JOB is {peers, cases: [{file, ids, out, kv}]}.
// Writes little-endian f32 [T, V] of every position to each `out`; a case that it refuses gets `out`.error with the message.
// `peers` is the folder in which node-llama-cpp is installed; `kv` the cache's type, F32 or F16.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { peers, cases } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const entry = createRequire(`${peers}/package.json`).resolve('node-llama-cpp');
const { getLlama } = await import(pathToFileURL(entry).href);
const llama = await getLlama({ gpu: false, maxThreads: 2, build: 'never', logLevel: 'error' });
for (const { file, ids, out, kv } of cases) {
  try {
    writeFileSync(out, await logitsOf(file, ids, kv));
  } catch (error) {
    writeFileSync(`${out}.error`, String(error.message ?? error));
  }
}
process.exit(0);

async function logitsOf(file, ids, kv) {
  const model = await llama.loadModel({ modelPath: file });
  const context = await model.createContext({
    contextSize: ids.length + 8,
    batchSize: 512,
    flashAttention: false,
    experimentalKvCacheKeyType: kv,
    experimentalKvCacheValueType: kv,
  });
  const every = ids.map((id) => [id, { generateNext: { logits: true } }]);
  const results = await context.getSequence().controlledEvaluate(every);
  const vocab = results[0].next.logits.size;
  const logits = new Float32Array(ids.length * vocab);
  for (const [row, { next }] of results.entries()) {
    for (const [token, logit] of next.logits) logits[row * vocab + token] = logit;
  }
  await model.dispose();
  return Buffer.from(logits.buffer);
}
