/**
 * What the commands share about terminals: colours only where a person looks, figures with sensible digits, tables,
 * a progress line on stderr. Nothing here knows models.
 */
import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];

/** Styled text when `stream` is a terminal that wants colour, else the text itself. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  const colour = process.env.FORCE_COLOR ? process.env.FORCE_COLOR !== '0' : stream.isTTY && !process.env.NO_COLOR;
  return colour ? styleText(style, text, { validateStream: false }) : text;
}

/** `1536 B`, `17.3 MB`, `10.5 GB`: decimal units, as disks and papers count. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return unit === 0 ? `${bytes} B` : `${value.toPrecision(3)} ${units[unit]}`;
}

/** `16.4 M`, `671 B`: counts of parameters. */
export function formatCount(count: number): string {
  const units = ['', ' k', ' M', ' B', ' T'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return unit === 0 ? String(count) : `${value.toPrecision(3)}${units[unit]}`;
}

/** Three significant digits, never in exponent form for ordinary magnitudes. */
export function formatRate(value: number): string {
  if (!Number.isFinite(value)) return '–';
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A rate that is only predicted: two digits. */
export function about(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2)));
}

/** Columns padded to their widest cell; right-aligned where `align` says `r`. */
export function table(rows: readonly (readonly string[])[], align = ''): string {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, displayWidth(cell));
    });
  return rows
    .map((row) =>
      row
        .map((cell, column) => {
          const space = ' '.repeat(widths[column] - displayWidth(cell));
          return align[column] === 'r' ? space + cell : cell + space;
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Terminal cells of a string: wide East Asian characters take two. */
function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    width += code >= 0x1100 && (code <= 0x115f || (code >= 0x2e80 && code <= 0xffe6 && code !== 0x303f)) ? 2 : 1;
  }
  return width;
}

/** A bar on stderr that redraws itself; silent where stderr is not a terminal or the work ends at once. */
export class ProgressBar {
  readonly #label: string;
  readonly #started = performance.now();
  #drawn = 0;

  constructor(label: string) {
    this.#label = label;
  }

  /** `done` of `total`, in bytes or in what `unit` says. */
  update(done: number, total: number, unit?: string): void {
    const now = performance.now();
    if (!process.stderr.isTTY || total <= 0 || now - this.#started < 200 || now - this.#drawn < 50) return;
    this.#drawn = now;
    const share = Math.min(1, done / total);
    const filled = Math.round(share * 24);
    const rate = (done / (now - this.#started)) * 1000;
    const amounts = unit
      ? `${done} of ${total} ${unit}  ${formatRate(rate)}/s`
      : `${formatBytes(done)} of ${formatBytes(total)}  ${formatBytes(rate)}/s`;
    const line = `${this.#label} ${'█'.repeat(filled)}${'░'.repeat(24 - filled)} ${(share * 100).toFixed(0)} %  ${amounts}`;
    // A line that wraps could not be wiped.
    process.stderr.write(`\r\x1b[K${line.slice(0, process.stderr.columns - 1)}`);
  }

  /** Wipes the line. */
  end(): void {
    if (this.#drawn > 0) process.stderr.write('\r\x1b[K');
    this.#drawn = 0;
  }
}
