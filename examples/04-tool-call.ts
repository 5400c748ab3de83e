// Let the model call a tool, run it, and give the result back.
import { type ChatMessage, load } from 'tandem';

await using engine = await load();
const tools = [{ name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } }];
const messages: ChatMessage[] = [{ role: 'user', content: 'What is the weather in Dublin?' }];

const { text, toolCalls } = await engine.chat(messages, { tools });
messages.push({ role: 'assistant', content: text, toolCalls });
for (const { id, name, arguments: json } of toolCalls) {
  console.log(`${name}(${json})`);
  const { city } = JSON.parse(json);
  messages.push({ role: 'tool', toolCallId: id, name, content: JSON.stringify({ celsius: 21, sky: 'sunny' }) });
  console.log(`looked outside in ${city}`);
}
console.log((await engine.chat(messages, { tools })).text);
