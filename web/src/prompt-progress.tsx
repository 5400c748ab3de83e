/** How far the server has read the prompt, before the first word. */
import { running } from './answer.ts';
import { fill, words } from './words.ts';

export function PromptProgress() {
  const w = words.value;
  const progress = running.value?.progress;
  if (progress === undefined) return <p class="faint pulse">{w.waiting}</p>;
  const { total, processed, cache } = progress;
  const known = cache > 0 ? ` · ${fill(w.cached, { n: cache })}` : '';
  return (
    <div class="prompt-progress">
      <progress value={processed} max={total} aria-label={w.reading} />
      <span class="faint">{`${w.reading} · ${processed} / ${total}${known}`}</span>
    </div>
  );
}
