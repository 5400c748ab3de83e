/** What an answer cost, in the server's own figures. */
import type { Timings } from './wire.ts';
import { fill, words } from './words.ts';

function short(value: number): string {
  return value >= 100 ? String(Math.round(value)) : value.toFixed(1);
}

export function TimingsView({ timings }: { readonly timings: Timings }) {
  const w = words.value;
  const { predicted_n: tokens, predicted_per_second: speed, prompt_per_second: prompt, cache_n: cached } = timings;
  const parts = [
    tokens !== undefined && fill(w.tokens, { n: tokens }),
    speed !== undefined && fill(w.speed, { n: short(speed) }),
    prompt !== undefined && fill(w.prefillSpeed, { n: short(prompt) }),
    cached !== undefined && cached > 0 && fill(w.cached, { n: cached }),
  ];
  return <span class="timings">{parts.filter(Boolean).join(' · ')}</span>;
}
