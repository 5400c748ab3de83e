/** Signals that outlive the page: settings in localStorage, secrets for one tab in sessionStorage. */
import { effect, type Signal, signal } from '@preact/signals';

/** `name`'s stored value, or `initial` where none can be read; written back on every change. */
export function stored<T>(name: string, initial: T, where: () => Storage = () => localStorage): Signal<T> {
  const key = `tandem.${name}`;
  const value = signal<T>(initial);
  try {
    const text = where().getItem(key);
    if (text !== null) value.value = JSON.parse(text) as T;
  } catch {
    // A browser that refuses storage, or a value that is no JSON: the page works without.
  }
  effect(() => {
    const text = JSON.stringify(value.value);
    try {
      where().setItem(key, text);
    } catch {
      // As above.
    }
  });
  return value;
}
