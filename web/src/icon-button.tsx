/** A button that shows a sign and says its name to who does not see it. */
import { Icon } from './icon.tsx';

interface IconButtonProps {
  readonly icon: Parameters<typeof Icon>[0]['name'];
  readonly label: string;
  readonly onClick: () => void;
  readonly pressed?: boolean;
  readonly class?: string;
}

export function IconButton({ icon, label, onClick, pressed, class: name }: IconButtonProps) {
  return (
    <button
      type="button"
      class={`icon ${name ?? ''}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}
