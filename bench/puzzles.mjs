// How many of the shipped model's puzzles are answered to the letter, greedy, on native kernels:
//   node bench/puzzles.mjs [MODEL …]          (default: the model that ships, GGUF and Hugging Face)
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultModelPath, load } from '../dist/index.js';

const jug = fileURLToPath(new URL('../models/jug/', import.meta.url));
const puzzles = JSON.parse(readFileSync(`${jug}puzzles.json`, 'utf8'));
const models = process.argv.slice(2);
if (models.length === 0) models.push(defaultModelPath(), `${jug}hf`);
for (const model of models) {
  const engine = await load(model);
  const results = await Promise.all(
    puzzles.map(({ prompt }) => engine.chat([{ role: 'user', content: prompt }], { temperature: 0 })),
  );
  const exact = results.filter(
    ({ reasoning, text }, i) =>
      reasoning.trim() === puzzles[i].thinking.trim() && text.trim() === puzzles[i].answer.trim(),
  ).length;
  console.log(`${basename(model)}\t${exact} of ${puzzles.length}`);
  await engine.dispose();
}
