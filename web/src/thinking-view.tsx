/** Thoughts before an answer: open while they come or where no answer followed, folded else, unless the reader said otherwise. */
import { useSignal } from '@preact/signals';
import type { Message } from './conversation.ts';
import { MarkdownView } from './markdown-view.tsx';
import { fill, words } from './words.ts';

interface ThinkingProps {
  readonly message: Message;
  readonly live: boolean;
}

export function ThinkingView({ message, live }: ThinkingProps) {
  const { reasoning, thinkingMs } = message;
  const w = words.value;
  const wish = useSignal<boolean | undefined>(undefined);
  const alone = message.content === '' && message.toolCalls === undefined;
  const open = wish.value ?? (live || alone);
  const seconds = Math.round((thinkingMs ?? 0) / 1000);
  const done = thinkingMs === undefined ? w.thought : fill(w.thoughtFor, { s: Math.max(1, seconds) });
  return (
    <section class="thinking">
      <button
        type="button"
        class="quiet"
        aria-expanded={open}
        onClick={() => {
          wish.value = !open;
        }}
      >
        <span class={live ? 'pulse' : ''}>{live ? `${w.thinking} · ${seconds} s` : done}</span>
        <span aria-hidden="true">{open ? ' ▾' : ' ▸'}</span>
      </button>
      {open && (
        <div class="thoughts">
          <MarkdownView text={reasoning ?? ''} />
        </div>
      )}
    </section>
  );
}
