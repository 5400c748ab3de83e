/** Finding marker strings in text that is still growing. */

/** The marker that begins first; of several that begin there, the longest. */
export function findMarker(text: string, markers: readonly string[]): { at: number; marker: string } | undefined {
  let best: { at: number; marker: string } | undefined;
  for (const marker of markers) {
    const at = text.indexOf(marker);
    if (at < 0) continue;
    if (best === undefined || at < best.at || (at === best.at && marker.length > best.marker.length)) {
      best = { at, marker };
    }
  }
  return best;
}

/** Where the longest end of `text` begins that could grow into a marker; `text.length` where none could. */
export function heldFrom(text: string, markers: readonly string[]): number {
  const longest = markers.reduce((length, marker) => Math.max(length, marker.length), 0);
  for (let from = Math.max(0, text.length - longest + 1); from < text.length; from++) {
    const end = text.slice(from);
    if (markers.some((marker) => marker.startsWith(end))) return from;
  }
  return text.length;
}
