// One run of node-llama-cpp: node node-llama-cpp.mjs FILE THREADS PROMPT GENERATE MODULUS ISA → one JSON line with its rates.
// `tandem bench model --against node-llama-cpp` starts it. The prompt is token ids, the same for every engine; generation goes on past end-of-text.
// It picks its kernels by the processor and has no switch for that: where ISA is weaker it is shown only the libraries that such a processor could take.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire, register } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const [file, threads, prompt, generate, modulus, isa] = process.argv.slice(2);

/** Libraries that need no more than the instruction set; the best of them is taken. */
const LIBRARIES = {
  scalar: ['x64', 'sse42'],
  avx2: ['x64', 'sse42', 'sandybridge', 'ivybridge', 'piledriver', 'haswell'],
};

if (LIBRARIES[isa]) {
  const name = `@node-llama-cpp/linux-x64`;
  const require = createRequire(createRequire(import.meta.url).resolve('node-llama-cpp'));
  const root = dirname(dirname(require.resolve(name)));
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const binsDir = mkdtempSync(join(tmpdir(), 'tandem-peer-'));
  process.once('exit', () => rmSync(binsDir, { recursive: true, force: true }));
  for (const folder of readdirSync(join(root, 'bins')))
    cpSync(join(root, 'bins', folder), join(binsDir, folder), {
      recursive: true,
      filter: (path) => LIBRARIES[isa].includes(/libggml-cpu-(\w+)\.so$/.exec(path)?.[1] ?? LIBRARIES[isa][0]),
    });
  const bins = `export const getBinsDir = () => (${JSON.stringify({ binsDir, packageVersion: version })});`;
  const url = `data:text/javascript,${encodeURIComponent(bins)}`;
  const hook = `export const resolve = (specifier, context, next) =>
    specifier === ${JSON.stringify(name)} ? { url: ${JSON.stringify(url)}, shortCircuit: true } : next(specifier, context);`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
}

const { getLlama } = await import('node-llama-cpp');
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
    system: llama.systemInfo,
  }),
);
process.exit(0);
