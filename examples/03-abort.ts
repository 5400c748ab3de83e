// Stop an answer: with a signal, wherever it is (queue, prompt, answer), or by leaving the loop.
import { isAbort, load } from 'tandem';

await using engine = await load();
const question = [{ role: 'user' as const, content: 'How do I get 4 L of water with a 3 L jug and a 5 L jug?' }];

const controller = new AbortController();
const generation = engine.chat(question, { signal: controller.signal });
try {
  let tokens = 0;
  for await (const event of generation) if (event.type === 'reasoning' && ++tokens === 12) controller.abort();
} catch (error) {
  if (!isAbort(error)) throw error;
  console.log(`stopped after: ${generation.partial?.reasoning}`);
}

for await (const event of engine.chat(question)) if (event.type === 'reasoning') break; // aborts as well
console.log(`running: ${engine.stats().running}`);
