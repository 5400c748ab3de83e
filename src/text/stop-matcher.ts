/**
 * Stop strings over streamed text. It passes on what can no longer be part of a stop string and holds back the rest:
 * never more than the longest stop string less one character. Text that ends inside a surrogate pair is the caller's
 * mistake (the detokenizer never gives such).
 */
import { heldFrom } from './markers.ts';

export interface StopResult {
  /** Text that is now certain, in order. */
  readonly text: string;
  /** The stop string that was met. Everything from it on is dropped. */
  readonly stop?: string;
}

export class StopMatcher {
  private readonly stops: readonly string[];
  private held = '';
  private met?: string;

  /** Empty strings are ignored: they would stop everything. */
  constructor(stops: readonly string[]) {
    this.stops = stops.filter((stop) => stop !== '');
  }

  /** Takes more text. After a stop string was met it takes nothing more. */
  push(text: string): StopResult {
    if (this.met !== undefined) return { text: '', stop: this.met };
    const all = this.held + text;
    const found = this.earliest(all);
    if (found !== undefined) {
      this.held = '';
      this.met = found.stop;
      return { text: all.slice(0, found.at), stop: found.stop };
    }
    const keep = heldFrom(all, this.stops);
    this.held = all.slice(keep);
    return { text: all.slice(0, keep) };
  }

  /** The end of the text: what was held back is text after all. */
  flush(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }

  /** The stop string that is complete first, as a stream of single characters would meet it; the longest of several. */
  private earliest(all: string): { at: number; stop: string } | undefined {
    let best: { at: number; end: number; stop: string } | undefined;
    for (const stop of this.stops) {
      const at = all.indexOf(stop);
      if (at < 0) continue;
      const end = at + stop.length;
      if (best === undefined || end < best.end || (end === best.end && at < best.at)) best = { at, end, stop };
    }
    return best;
  }
}
