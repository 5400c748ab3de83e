/** Where questions are written. Enter sends, Shift+Enter starts a line (so does Enter of a touch screen's keyboard, which has no other way); an input method's Enter does neither. */
import { signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { ask, running, stop } from './answer.ts';
import { Icon } from './icon.tsx';
import { words } from './words.ts';

const draft = signal('');
const touch = matchMedia('(pointer: coarse)');

function send(): void {
  const text = draft.value.trim();
  if (text === '' || running.value) return;
  draft.value = '';
  ask(text);
}

export function Composer() {
  const w = words.value;
  const area = useRef<HTMLTextAreaElement>(null);
  const text = draft.value;
  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = 'auto';
    if (text !== '') element.style.height = `${element.scrollHeight}px`;
  }, [text]);
  // Where there are keys the page opens ready to be written to; a touch screen would raise its keyboard.
  useEffect(() => {
    if (!touch.matches) area.current?.focus();
  }, []);
  const halt = () => {
    stop();
    if (!touch.matches) area.current?.focus();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        id="question"
        ref={area}
        rows={1}
        aria-label={w.ask}
        placeholder={w.ask}
        value={text}
        onInput={(event) => {
          draft.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing || touch.matches) return;
          event.preventDefault();
          send();
        }}
      />
      {running.value ? (
        <button type="button" class="main round" aria-label={w.stop} title={`${w.stop} (Esc)`} onClick={halt}>
          <Icon name="stop" />
        </button>
      ) : (
        <button type="submit" class="main round" aria-label={w.send} title={w.send} disabled={text.trim() === ''}>
          <Icon name="send" />
        </button>
      )}
    </form>
  );
}
