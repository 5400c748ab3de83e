/** All conversations of this browser, newest first, and which one is shown. */
import { computed, signal } from '@preact/signals';
import { type Conversation, type Message, newId } from './conversation.ts';
import { erase, readAll, write } from './database.ts';
import { stored } from './stored.ts';

export const conversations = signal<readonly Conversation[]>([]);

/** Empty: a new conversation that has no message yet and is kept nowhere. */
export const currentId = stored('current', '', () => sessionStorage);

export const current = computed(() => conversations.value.find(({ id }) => id === currentId.value));

export const search = signal('');

/** Those whose title or messages hold every word of the search. */
export const found = computed(() => {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (terms.length === 0) return conversations.value;
  return conversations.value.filter(({ title, messages }) => {
    const text = [title, ...messages.map(({ content }) => content)].join('\n').toLowerCase();
    return terms.every((term) => text.includes(term));
  });
});

export async function loadConversations(): Promise<void> {
  const all = await readAll();
  conversations.value = all.sort((a, b) => b.updated - a.updated);
}

export function startConversation(title: string): string {
  const id = newId();
  conversations.value = [{ id, title, updated: Date.now(), messages: [] }, ...conversations.value];
  currentId.value = id;
  return id;
}

/** Replaces a conversation by what `change` makes of it. `keep` writes it down too; a stream does so now and then. */
export function changeConversation(id: string, change: (old: Conversation) => Conversation, keep = true): void {
  conversations.value = conversations.value.map((old) => {
    if (old.id !== id) return old;
    const next = change(old);
    if (keep) void write(next);
    return next;
  });
}

export function changeMessage(id: string, messageId: string, change: (old: Message) => Message, keep = true): void {
  changeConversation(
    id,
    (old) => ({
      ...old,
      messages: old.messages.map((message) => (message.id === messageId ? change(message) : message)),
    }),
    keep,
  );
}

/** Puts a conversation first: it was talked in just now. */
export function touch(id: string): void {
  changeConversation(id, (old) => ({ ...old, updated: Date.now() }));
  conversations.value = [...conversations.value].sort((a, b) => b.updated - a.updated);
}

export function rename(id: string, title: string): void {
  if (title.trim() !== '') changeConversation(id, (old) => ({ ...old, title: title.trim() }));
}

export function remove(id: string): void {
  conversations.value = conversations.value.filter((one) => one.id !== id);
  if (currentId.value === id) currentId.value = '';
  void erase(id);
}
