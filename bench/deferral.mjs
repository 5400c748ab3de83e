// What expert deferral costs in quality, beside leaving the same experts out: KL from the model as it is over the texts of the
// shipped model's puzzles, and how many it still answers to the letter, greedy, on native kernels in exact mode:
//   node bench/deferral.mjs [MODEL …]          (default: the model that ships)
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultModelPath, load } from '../dist/index.js';

const puzzles = JSON.parse(readFileSync(fileURLToPath(new URL('../models/jug/puzzles.json', import.meta.url)), 'utf8'));
const text = puzzles
  .map(
    ({ prompt, thinking, answer }) => `<｜User｜>${prompt}<｜Assistant｜><think>\n${thinking}\n</think>\n\n${answer}`,
  )
  .join('\n');
const models = process.argv.slice(2);

async function score(engine) {
  const chat = ({ prompt }) => engine.chat([{ role: 'user', content: prompt }], { temperature: 0 });
  const results = await Promise.all(puzzles.map(chat));
  return results.filter(
    ({ reasoning, text }, i) =>
      reasoning.trim() === puzzles[i].thinking.trim() && text.trim() === puzzles[i].answer.trim(),
  ).length;
}

for (const model of models.length > 0 ? models : [defaultModelPath()]) {
  const options = { exact: true, contextLength: 1024 };
  const whole = await load(model, options);
  const of =
    Number(/from 0 to (\d+)/.exec(await load(model, { deferExperts: 1e6 }).catch(({ message }) => message))[1]) + 1;
  console.log(`${basename(model)}, ${of} experts a token: ${await score(whole)} of ${puzzles.length} puzzles`);
  for (let d = 1; d < of; d++)
    for (const [what, change] of [
      ['deferred', { deferExperts: d }],
      ['left out', { expertsPerToken: of - d }],
    ]) {
      const engine = await load(model, { ...options, ...change });
      const { mean, standardError, p99, sameTop, model: own } = await engine.divergence(whole, text, { window: 256 });
      const columns = [
        `${d} ${what}`,
        `KL ${mean.toFixed(4)} ± ${standardError.toFixed(4)}`,
        `99 % ${p99.toFixed(3)}`,
        `same top ${(sameTop * 100).toFixed(1)} %`,
        `perplexity ${own.perplexity.toFixed(2)}`,
        `${await score(engine)} puzzles`,
      ];
      console.log(columns.join('\t'));
      await engine.dispose();
    }
  await whole.dispose();
}
