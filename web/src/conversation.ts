/** What a conversation is: plain values that IndexedDB keeps as they are. */
import type { Timings } from './wire.ts';

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON, as far as it was written. */
  readonly arguments: string;
}

export interface Message {
  readonly id: string;
  readonly role: 'user' | 'assistant';
  readonly content: string;
  readonly reasoning?: string;
  /** How long the model thought. */
  readonly thinkingMs?: number;
  readonly toolCalls?: readonly ToolCall[];
  readonly timings?: Timings;
  readonly model?: string;
  readonly finish?: 'stop' | 'length' | 'tool_calls' | 'stopped';
  /** Why there is no whole answer, in words. */
  readonly error?: string;
}

export interface Conversation {
  readonly id: string;
  readonly title: string;
  /** Milliseconds since 1970. */
  readonly updated: number;
  readonly messages: readonly Message[];
}

export function newId(): string {
  // crypto.randomUUID exists in secure contexts only, and the page is also read over http in a home network.
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The first words of a question. */
export function titleOf(text: string): string {
  const line = text.trim().replace(/\s+/g, ' ');
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
