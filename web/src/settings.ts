/** How requests are made: what is left empty is for the model, or the server, to say. */
import { computed } from '@preact/signals';
import { stored } from './stored.ts';

export interface Settings {
  readonly system: string;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly seed?: number;
  readonly max_tokens?: number;
  readonly thinking: 'auto' | 'on' | 'off';
  readonly thinking_budget?: number;
  /** A JSON object whose fields go into the request: tools, response_format, … */
  readonly extra: string;
}

export const DEFAULT_SETTINGS: Settings = { system: '', thinking: 'auto', extra: '' };

export const settings = stored<Settings>('settings', DEFAULT_SETTINGS);

export const model = stored('model', '');

/** The further fields; undefined where the text is no JSON object. */
export const extraFields = computed<Record<string, unknown> | undefined>(() => {
  const { extra } = settings.value;
  if (extra.trim() === '') return {};
  try {
    const value: unknown = JSON.parse(extra);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
});

/** The request fields of the settings. */
export function settingsFields(): Record<string, unknown> {
  const { system: _, thinking, extra: __, ...numbers } = settings.value;
  const on = thinking === 'auto' ? {} : { enable_thinking: thinking === 'on' };
  return { ...numbers, ...on, ...extraFields.value };
}
