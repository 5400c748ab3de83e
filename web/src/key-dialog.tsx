/** Asks for the server's API key, once it wants one. */
import { useSignal } from '@preact/signals';
import { keyAsked } from './wire.ts';
import { words } from './words.ts';

export function KeyDialog() {
  const w = words.value;
  const key = useSignal('');
  const answer = keyAsked.value;
  if (answer === undefined) return null;
  return (
    <dialog
      aria-label={w.keyTitle}
      ref={(dialog) => {
        if (dialog && !dialog.open) dialog.showModal();
      }}
      onCancel={() => answer(undefined)}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          answer(key.value.trim());
          key.value = '';
        }}
      >
        <h2>{w.keyTitle}</h2>
        <p class="faint">{w.keyWhy}</p>
        <label class="field tall">
          <span>{w.key}</span>
          <input
            type="password"
            autocomplete="off"
            value={key.value}
            onInput={(event) => {
              key.value = event.currentTarget.value;
            }}
          />
        </label>
        <div class="row">
          <button type="button" onClick={() => answer(undefined)}>
            {w.cancel}
          </button>
          <button type="submit" class="main">
            {w.use}
          </button>
        </div>
      </form>
    </dialog>
  );
}
