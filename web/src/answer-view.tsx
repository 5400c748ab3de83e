/** An answer: thoughts, text, tool calls, and beneath what it cost. */
import { useComputed } from '@preact/signals';
import { regenerate, running } from './answer.ts';
import { copyText } from './copy.ts';
import { IconButton } from './icon-button.tsx';
import { LiveSpeed } from './live-speed.tsx';
import { MarkdownView } from './markdown-view.tsx';
import type { MessageProps } from './message-view.tsx';
import { PromptProgress } from './prompt-progress.tsx';
import { ThinkingView } from './thinking-view.tsx';
import { TimingsView } from './timings-view.tsx';
import { fill, words } from './words.ts';

export function AnswerView({ conversationId, message }: MessageProps) {
  const w = words.value;
  // Computed, so that the progress of one answer draws no other one anew.
  const live = useComputed(() => running.value?.messageId === message.id).value;
  const { content, reasoning, toolCalls, error, finish } = message;
  const begun = content !== '' || reasoning !== undefined || toolCalls !== undefined;
  // A page that was closed or loaded anew in the middle of an answer wrote no end of it.
  const stopped = finish === 'stopped' || (finish === undefined && error === undefined && !live);
  return (
    <article class="answer" aria-label={w.assistant} aria-busy={live}>
      {live && !begun && <PromptProgress />}
      {reasoning !== undefined && <ThinkingView message={message} live={live && content === '' && !toolCalls} />}
      {content !== '' && <MarkdownView text={content} />}
      {toolCalls?.map((one) => (
        <details class="call" key={one.id}>
          <summary>{fill(w.toolCall, { name: one.name })}</summary>
          <pre>{one.arguments}</pre>
        </details>
      ))}
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {finish === 'length' && <p class="faint">{w.cut}</p>}
      {stopped && <p class="faint">{w.stopped}</p>}
      {live && begun && <LiveSpeed />}
      {!live && (
        <footer>
          {content !== '' && <IconButton icon="copy" label={w.copy} onClick={() => copyText(content)} />}
          <IconButton
            icon="again"
            label={error === undefined ? w.regenerate : w.retry}
            onClick={() => regenerate(conversationId, message.id)}
          />
          {message.timings && <TimingsView timings={message.timings} />}
        </footer>
      )}
    </article>
  );
}
