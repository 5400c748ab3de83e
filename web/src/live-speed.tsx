/** How fast the running answer comes, while the server's own figure is not yet there. */
import { running } from './answer.ts';
import { fill, words } from './words.ts';

export function LiveSpeed() {
  const speed = running.value?.speed;
  if (speed === undefined) return null;
  return <p class="timings live">{fill(words.value.speed, { n: speed.toFixed(1) })}</p>;
}
