/** Drawn signs, 20 × 20, in the colour of their text. */
const PATHS = {
  menu: 'M3 5h14M3 10h14M3 15h14',
  plus: 'M10 4v12M4 10h12',
  send: 'M10 16V4M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  close: 'M5 5l10 10M15 5L5 15',
  settings: 'M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4',
  edit: 'M4 16l1-4 8-8 3 3-8 8z',
  trash: 'M4 6h12M8 6V4h4v2M6 6l1 10h6l1-10',
  experts: 'M4 4h3v3H4zM13 4h3v3h-3zM8.5 8.5h3v3h-3zM4 13h3v3H4zM13 13h3v3h-3z',
  copy: 'M7 7h9v9H7zM4 13V4h9',
  again: 'M15.5 10a5.5 5.5 0 1 1-1.8-4.1M14 2v4h-4',
};

export function Icon({ name }: { readonly name: keyof typeof PATHS }) {
  return (
    <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round" />
    </svg>
  );
}
