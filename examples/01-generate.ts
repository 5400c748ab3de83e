// Continue a text, token by token. The prompt is the model's own format; `02-chat.ts` lets the chat template write it.
import { load } from 'tandem';

await using engine = await load(); // the model that ships; else a GGUF file or a Hugging Face folder

const generation = engine.generate('<｜User｜>What is 3 + 4?<｜Assistant｜><think>\n', {
  parseSpecial: true, // the markers above are control tokens, not text
  maxTokens: 64,
});
let text = '';
for await (const event of generation) if (event.type === 'text') text += event.text;
console.log(text);

const { usage, timings, finishReason } = await generation; // awaiting gives the result, before or after the events
console.log(`${usage.completionTokens} tokens, ${timings.tokensPerSecond.toFixed(0)} tok/s, ended by ${finishReason}`);
