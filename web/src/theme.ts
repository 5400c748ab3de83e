/** Light, dark, or what the system says. */
import { effect } from '@preact/signals';
import { stored } from './stored.ts';

export type Theme = 'system' | 'light' | 'dark';

export const theme = stored<Theme>('theme', 'system');

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});
