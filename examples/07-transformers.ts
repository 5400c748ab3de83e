// Code written for @huggingface/transformers, with one import changed: a chat, a streamer, a text.
import { pipeline, TextStreamer } from 'tandem/transformers';

const generator = await pipeline('text-generation', null); // a name such as 'Qwen/Qwen3-0.6B'; null: the model that ships

const messages = [{ role: 'user', content: 'What is 9 - 7?' }];
const words: string[] = [];
const streamer = new TextStreamer(generator.tokenizer, {
  skip_prompt: true,
  callback_function: (text) => words.push(text),
});
const [chat] = await generator(messages, { max_new_tokens: 64, do_sample: false, streamer });
console.log(chat.generated_text.at(-1)?.content);
console.log(`in ${words.length} pieces, the first: ${JSON.stringify(words[0])}`);

const [{ generated_text }] = await generator('What is 3 + 4?', { max_new_tokens: 8 });
console.log(JSON.stringify(generated_text));
await generator.dispose();
