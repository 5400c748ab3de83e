/** A question, and its second version while it is written. */
import { useSignal } from '@preact/signals';
import { editQuestion } from './answer.ts';
import { IconButton } from './icon-button.tsx';
import type { MessageProps } from './message-view.tsx';
import { words } from './words.ts';

export function QuestionView({ conversationId, message }: MessageProps) {
  const w = words.value;
  const draft = useSignal<string | undefined>(undefined);
  if (draft.value === undefined)
    return (
      <article class="question" aria-label={w.you}>
        <p>{message.content}</p>
        <IconButton
          icon="edit"
          label={w.edit}
          onClick={() => {
            draft.value = message.content;
          }}
        />
      </article>
    );
  const cancel = () => {
    draft.value = undefined;
  };
  const send = () => {
    const text = draft.value?.trim();
    if (text) editQuestion(conversationId, message.id, text);
  };
  return (
    <form
      class="question editing"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        aria-label={w.edit}
        value={draft.value}
        rows={Math.min(12, draft.value.split('\n').length + 1)}
        ref={(area) => {
          if (area && document.activeElement !== area) area.focus();
        }}
        onInput={(event) => {
          draft.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send();
          } else if (event.key === 'Escape') {
            event.stopPropagation();
            cancel();
          }
        }}
      />
      <div class="row">
        <button type="button" onClick={cancel}>
          {w.cancel}
        </button>
        <button type="submit" class="main">
          {w.resend}
        </button>
      </div>
    </form>
  );
}
