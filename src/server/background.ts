/**
 * Requests that web front ends send by themselves beside a conversation (titles, tags, follow-up questions, search queries):
 * they wait behind those a person waits for.
 */
import type { ChatMessage } from '../text/messages.ts';

export const BACKGROUND_PRIORITY = -1;

/** How Open WebUI's and LibreChat's task prompts begin. */
const TASKS = [
  /^### Task:\s/,
  /^Provide a concise, 5-word-or-less title/,
  /^Generate a concise,? .{0,40}(title|tags)/i,
  /^Create a concise, 3-5 word (phrase|title)/i,
];

export function isBackgroundTask(messages: readonly ChatMessage[]): boolean {
  const asked = messages.filter(({ role }) => role === 'user');
  return asked.length === 1 && TASKS.some((task) => task.test(asked[0].content.trimStart()));
}
