/** Keys of the whole page: Esc stops, Ctrl+K (⌘K) starts anew, / goes to the question. */
import { running, stop } from './answer.ts';
import { currentId } from './conversations.ts';
import { panel } from './panel.ts';

function focusQuestion(): void {
  document.querySelector<HTMLTextAreaElement>('#question')?.focus();
}

export function newChat(): void {
  currentId.value = '';
  if (panel.value === 'conversations') panel.value = undefined;
  focusQuestion();
}

export function watchKeys(): void {
  addEventListener('keydown', (event) => {
    const writing =
      event.target instanceof Element && event.target.matches('input, textarea, select, [contenteditable]');
    if (event.key === 'Escape') {
      if (panel.value !== undefined) panel.value = undefined;
      else if (running.value) stop();
      else return;
    } else if (event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey)) newChat();
    else if (event.key === '/' && !writing && !event.ctrlKey && !event.metaKey) focusQuestion();
    else return;
    event.preventDefault();
  });
}
