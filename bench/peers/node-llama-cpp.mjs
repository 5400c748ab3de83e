// One run of node-llama-cpp: node node-llama-cpp.mjs FILE THREADS PROMPT GENERATE MODULUS → one JSON line with its rates.
// `tandem bench model --against node-llama-cpp` starts it. The prompt is token ids, the same for every engine; generation goes on past end-of-text.
import { getLlama } from 'node-llama-cpp';

const [file, threads, prompt, generate, modulus] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, maxThreads: Number(threads), build: 'never', logLevel: 'error' });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({
  contextSize: Number(prompt) + Number(generate) + 64,
  threads: Number(threads),
  batchSize: 512,
});
const ids = Array.from({ length: Number(prompt) }, (_, i) => ((i * 37 + 11) % Number(modulus)) + 3);
const sequence = context.getSequence();
const started = performance.now();
let first = 0;
let count = 0;
for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
  if (count++ === 0) first = performance.now();
  if (count > Number(generate)) break;
}
const ended = performance.now();
console.log(
  JSON.stringify({
    prefillTokensPerSecond: Number(prompt) / ((first - started) / 1000),
    decodeTokensPerSecond: (count - 1) / ((ended - first) / 1000),
  }),
);
process.exit(0);
