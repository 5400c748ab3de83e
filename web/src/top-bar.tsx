/** Which model answers, and the doors to the panels. */
import { expertsExist } from './experts.ts';
import { IconButton } from './icon-button.tsx';
import { chosen, models } from './models.ts';
import { expertsShown, panel } from './panel.ts';
import { model } from './settings.ts';
import type { ModelEntry } from './wire.ts';
import { words } from './words.ts';

function stateOf({ status, meta }: ModelEntry): string {
  if (status?.value !== 'loading') return '';
  const share = meta?.progress === undefined ? '' : ` ${Math.round(meta.progress * 100)} %`;
  return ` · ${words.value.loading}${share}`;
}

export function TopBar() {
  const w = words.value;
  const toggle = (name: 'conversations' | 'settings') => () => {
    panel.value = panel.value === name ? undefined : name;
  };
  return (
    <header class="top-bar">
      <IconButton icon="menu" label={w.menu} class="phone" onClick={toggle('conversations')} />
      {models.value.length > 1 ? (
        <select
          aria-label={w.model}
          value={chosen.value?.id}
          onChange={(event) => {
            model.value = event.currentTarget.value;
          }}
        >
          {models.value.map((one) => (
            <option key={one.id} value={one.id}>
              {one.id}
              {stateOf(one)}
            </option>
          ))}
        </select>
      ) : (
        <span class="model">
          {chosen.value?.id}
          {chosen.value && stateOf(chosen.value)}
        </span>
      )}
      <span class="space" />
      {expertsExist.value && (
        <IconButton
          icon="experts"
          label={w.experts}
          pressed={expertsShown.value}
          onClick={() => {
            expertsShown.value = !expertsShown.value;
          }}
        />
      )}
      <IconButton
        icon="settings"
        label={w.settings}
        pressed={panel.value === 'settings'}
        onClick={toggle('settings')}
      />
    </header>
  );
}
