// A conversation: thinking and answer come as separate events; the history is yours to keep.
import { type ChatMessage, load } from 'tandem';

await using engine = await load();
const messages: ChatMessage[] = [];

for (const question of ['What can you do?', 'What is 9 - 7?']) {
  messages.push({ role: 'user', content: question });
  const generation = engine.chat(messages);
  let thinking = '';
  let answer = '';
  for await (const event of generation) {
    if (event.type === 'reasoning') thinking += event.text;
    if (event.type === 'text') answer += event.text;
  }
  console.log(`${question}\n  (${thinking})\n  ${answer}`);
  messages.push({ role: 'assistant', content: answer });
}
