// How many of the shipped model's puzzles are answered to the letter, greedy, on native kernels, and how far its logits are
// from those of PyTorch where `golden/` lies beside the model (normalized mean square; with activations as they run, and
// unrounded: the kernels alone):
//   node bench/puzzles.mjs [--modes] [--exact] [MODEL …]          (default: the model that ships, GGUF and Hugging Face)
// --modes asks again for every instruction set here and for the ways of fast mode: tiles of AVX512-BF16, emulated AMX.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadNative } from '../dist/backend/native/load.js';
import { defaultModelPath, load } from '../dist/index.js';

const jug = fileURLToPath(new URL('../models/jug/', import.meta.url));
const puzzles = JSON.parse(readFileSync(`${jug}puzzles.json`, 'utf8'));
const { ids } = JSON.parse(readFileSync(`${jug}golden/index.json`, 'utf8'));
const flags = process.argv.slice(2).filter((word) => word.startsWith('--'));
const models = process.argv.slice(2).filter((word) => !word.startsWith('--'));
if (models.length === 0) models.push(defaultModelPath(), `${jug}hf`);
const exact = flags.includes('--exact');

if (flags.includes('--modes')) {
  const { isas, features } = loadNative().machine();
  const modes = isas.filter((isa) => isa !== 'scalar').map((isa) => ({ env: { TANDEM_ISA: isa }, words: ['--exact'] }));
  const fast = (isa, tiles) => modes.push({ env: { TANDEM_ISA: isa, TANDEM_TILES: tiles }, words: ['--fast'] });
  fast(isas.at(-1), 'emulated');
  if (features.includes('avx512bf16')) fast('avx512', '');
  if (isas.includes('amx')) fast('amx', '');
  for (const { env, words } of modes)
    spawnSync(process.execPath, [process.argv[1], ...words, ...models], {
      stdio: 'inherit',
      env: { ...process.env, ...env },
    });
  process.exit(0);
}

if (flags.includes('--fast') && loadNative().machine().tiles === '') {
  console.log(`no tiles with TANDEM_ISA=${process.env.TANDEM_ISA} TANDEM_TILES=${process.env.TANDEM_TILES}`);
  process.exit(0);
}
for (const model of models) {
  const engine = await load(model, { exact });
  const { isa, tiles } = loadNative().machine();
  const results = await Promise.all(
    puzzles.map(({ prompt }) => engine.chat([{ role: 'user', content: prompt }], { temperature: 0 })),
  );
  const right = results.map(
    ({ reasoning, text }, i) =>
      reasoning.trim() === puzzles[i].thinking.trim() && text.trim() === puzzles[i].answer.trim(),
  );
  const score = right.filter(Boolean).length;
  const lost = puzzles.filter(({ greedy_exact }, i) => greedy_exact && !right[i]).length;
  const columns = [basename(model), isa, engine.info.numerics === 'fast' ? tiles : 'exact'];
  await engine.dispose();
  const errors = await Promise.all(['rounded', 'f32'].map((activations) => goldenError(model, activations)));
  const far = errors.map((error) => (error === undefined ? '–' : error.toExponential(1))).join(' ');
  console.log([...columns, `${score} of ${puzzles.length}`, `lost ${lost}`, `golden ${far}`].join('\t'));
}

/** Against the golden logits of this file; undefined where there are none. */
async function goldenError(model, activations) {
  const name = `${basename(model, '.gguf').replace(/^jug-/, '')}.f32`;
  const path = [join(dirname(model), 'golden', name), join(model, '..', 'golden', name)].find(existsSync);
  if (path === undefined) return undefined;
  const bytes = readFileSync(path);
  const golden = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const engine = await load(model, { exact, activations, kvType: 'f32' });
  let [error, size, at] = [0, 0, 0];
  for (const sequence of ids)
    for (const logit of await engine.logits(sequence)) {
      error += (logit - golden[at]) ** 2;
      size += golden[at++] ** 2;
    }
  await engine.dispose();
  return error / size;
}
