/** Which models the server has; asked again while one loads. */
import { computed, signal } from '@preact/signals';
import { model } from './settings.ts';
import { fetchModels, type ModelEntry } from './wire.ts';

const LOOK_MS = 2000;

export const models = signal<readonly ModelEntry[]>([]);

/** The chosen one, or the server's first where the choice is gone. */
export const chosen = computed(() => models.value.find(({ id }) => id === model.value) ?? models.value[0]);

export function watchModels(): void {
  const look = async () => {
    models.value = await fetchModels().catch(() => models.value);
    const settled = models.value.some(({ status }) => status?.value === 'loaded');
    if (!settled) setTimeout(look, LOOK_MS);
  };
  void look();
}
