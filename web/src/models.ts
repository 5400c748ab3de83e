/** Which models the server has; asked again while one loads. */
import { computed, signal } from '@preact/signals';
import { model } from './settings.ts';
import { fetchModels, type ModelEntry } from './wire.ts';

/** Between two looks while a model loads, and while none does or nobody answers. */
const LOADING_MS = 2000;
const IDLE_MS = 10_000;

export const models = signal<readonly ModelEntry[]>([]);

/** The chosen one, or the server's first where the choice is gone. */
export const chosen = computed(() => models.value.find(({ id }) => id === model.value) ?? models.value[0]);

/** Looks until one is loaded; the first look may ask for the key, later ones bother nobody. */
export function watchModels(): void {
  const look = async (asks: boolean) => {
    models.value = await fetchModels(asks).catch(() => models.value);
    const states = models.value.map(({ status }) => status?.value);
    if (!states.includes('loaded')) setTimeout(look, states.includes('loading') ? LOADING_MS : IDLE_MS, false);
  };
  void look(true);
}
