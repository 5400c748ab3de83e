// How sure was it? Log-probabilities of the tokens drawn and of the best alternatives.
import { load } from 'tandem';

await using engine = await load();

const { logprobs = [] } = await engine.chat([{ role: 'user', content: 'What is 2 + 2?' }], { logprobs: 3 });
for (const { text, logprob, top } of logprobs.slice(0, 8)) {
  const others = top.map((token) => `${JSON.stringify(token.text)} ${percent(token.logprob)}`);
  console.log(`${JSON.stringify(text).padEnd(8)} ${percent(logprob)}   of ${others.join(', ')}`);
}

function percent(logprob: number): string {
  return `${(Math.exp(logprob) * 100).toFixed(1)} %`;
}
