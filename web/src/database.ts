/** Conversations in IndexedDB. A browser that refuses it (private windows of some) gets a page that forgets. */
import type { Conversation } from './conversation.ts';

const STORE = 'conversations';

const opened: Promise<IDBDatabase | undefined> = new Promise((resolve) => {
  try {
    const request = indexedDB.open('tandem', 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(undefined);
  } catch {
    resolve(undefined);
  }
});

async function ask<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | undefined> {
  const database = await opened;
  if (database === undefined) return undefined;
  return new Promise((resolve) => {
    const request = act(database.transaction(STORE, mode).objectStore(STORE));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(undefined);
  });
}

export async function readAll(): Promise<Conversation[]> {
  return (await ask<Conversation[]>('readonly', (store) => store.getAll())) ?? [];
}

export async function write(conversation: Conversation): Promise<void> {
  await ask('readwrite', (store) => store.put(conversation));
}

export async function erase(id: string): Promise<void> {
  await ask('readwrite', (store) => store.delete(id));
}
