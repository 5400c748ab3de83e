// Requests share passes: ask several things at once, each with its own options. The same seed gives the same text.
import { load } from 'tandem';

await using engine = await load(undefined, { contextLength: 512, exact: true }); // company must not show

const sums = ['1 + 7 = ?', 'What is 9 + 0?', 'Compute 9 - 7.'];
const answers = await Promise.all(
  sums.map((content) => engine.chat([{ role: 'user', content }], { temperature: 0.7, topP: 0.9, seed: 7 })),
);
for (const { text, usage } of answers) console.log(`${text}   (${usage.totalTokens} tokens)`);

const again = await engine.chat([{ role: 'user', content: sums[0] }], { temperature: 0.7, topP: 0.9, seed: 7 });
console.log(`alone, the same: ${again.text === answers[0].text}`);

const { passes, rows } = engine.stats();
console.log(`${rows} rows in ${passes} passes`);
