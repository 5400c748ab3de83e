/** What lies over or beside the conversation: on a phone one thing at a time. */
import { signal } from '@preact/signals';
import { stored } from './stored.ts';

export const panel = signal<'conversations' | 'settings' | undefined>(undefined);

/** The experts stay beside the conversation until they are closed. */
export const expertsShown = stored('experts', false);
