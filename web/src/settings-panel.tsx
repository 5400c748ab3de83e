/** System prompt, sampling, thinking, looks. An empty field leaves the matter to the model. */
import { IconButton } from './icon-button.tsx';
import { panel } from './panel.ts';
import { DEFAULT_SETTINGS, extraFields, type Settings, settings } from './settings.ts';
import { type Theme, theme } from './theme.ts';
import { type Language, language, words } from './words.ts';

type NumberName = {
  [K in keyof Settings]-?: Settings[K] extends number | undefined ? K : never;
}[keyof Settings];

interface NumberFieldProps {
  readonly name: NumberName;
  readonly label: string;
  readonly max?: number;
  readonly min?: number;
  readonly step?: number;
}

function change(part: Partial<Settings>): void {
  settings.value = { ...settings.value, ...part };
}

function NumberField({ name, label, min = 0, max, step = 1 }: NumberFieldProps) {
  const shown = settings.value[name] ?? '';
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        min={min}
        max={max}
        step={step}
        placeholder={words.value.byModel}
        ref={(input) => {
          // Not while it is written in: `0.` on the way to `0.5` is a number already.
          if (input && input !== document.activeElement) input.value = String(shown);
        }}
        onInput={({ currentTarget: { value, valueAsNumber: number, validity } }) => {
          // The step is for the arrows; what is written may be finer. Out of range it is marked, and not taken.
          if (value === '' && !validity.badInput) change({ [name]: undefined });
          else if (!validity.rangeOverflow && !validity.rangeUnderflow && !validity.badInput)
            change({ [name]: step === 1 ? Math.round(number) : number });
        }}
      />
    </label>
  );
}

interface ChoiceProps<T extends string> {
  readonly label: string;
  readonly value: T;
  readonly options: Record<T, string>;
  readonly onChange: (value: T) => void;
}

function Choice<T extends string>({ label, value, options, onChange }: ChoiceProps<T>) {
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
        {Object.entries<string>(options).map(([name, text]) => (
          <option key={name} value={name}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

export function SettingsPanel() {
  const w = words.value;
  return (
    <aside class="settings" aria-label={w.settings}>
      <div class="panel-head">
        <h2>{w.settings}</h2>
        <IconButton
          icon="close"
          label={w.close}
          onClick={() => {
            panel.value = undefined;
          }}
        />
      </div>
      <label class="field tall">
        <span>{w.systemPrompt}</span>
        <textarea
          rows={4}
          value={settings.value.system}
          onInput={(event) => change({ system: event.currentTarget.value })}
        />
      </label>
      <h3>{w.sampling}</h3>
      <NumberField name="temperature" label={w.temperature} max={5} step={0.05} />
      <NumberField name="top_p" label={w.topP} max={1} step={0.01} />
      <NumberField name="top_k" label={w.topK} />
      <NumberField name="min_p" label={w.minP} max={1} step={0.01} />
      <NumberField name="seed" label={w.seed} />
      <NumberField name="max_tokens" label={w.maxTokens} min={1} />
      <Choice
        label={w.thinkingMode}
        value={settings.value.thinking}
        options={{ auto: w.thinkingAuto, on: w.thinkingOn, off: w.thinkingOff }}
        onChange={(thinking) => change({ thinking })}
      />
      <NumberField name="thinking_budget" label={w.budget} />
      <label class="field tall">
        <span>{w.extra}</span>
        <textarea
          rows={3}
          class="code-text"
          spellcheck={false}
          value={settings.value.extra}
          aria-invalid={extraFields.value === undefined}
          onInput={(event) => change({ extra: event.currentTarget.value })}
        />
        {extraFields.value === undefined && <span class="error">{w.extraWrong}</span>}
      </label>
      <button
        type="button"
        onClick={() => {
          settings.value = DEFAULT_SETTINGS;
        }}
      >
        {w.reset}
      </button>
      <h3>{w.appearance}</h3>
      <Choice<Theme>
        label={w.theme}
        value={theme.value}
        options={{ system: w.themeSystem, light: w.themeLight, dark: w.themeDark }}
        onChange={(value) => {
          theme.value = value;
        }}
      />
      <Choice<Language>
        label={w.language}
        value={language.value}
        options={{ en: 'English', zh: '中文' }}
        onChange={(value) => {
          language.value = value;
        }}
      />
    </aside>
  );
}
