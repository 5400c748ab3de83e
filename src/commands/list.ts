/** `tandem list`: the models that are here, those of the cache and the one that ships. */
import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { cachedModels, hubSettings } from '../hub/index.ts';
import { defaultModelPath } from '../index.ts';
import { formatBytes, paint, table } from './terminal.ts';

interface Line {
  /** What `--model` takes; null for the one that is taken without it. */
  readonly name: string | null;
  readonly quant: string;
  readonly bytes: number;
  readonly usedAt: string | null;
  readonly commit: string | null;
  readonly path: string;
}

export function addList(cli: Command): void {
  cli
    .command('list')
    .alias('ls')
    .description('the models in the cache, with size and last use')
    .option('--json', 'print a JSON array')
    .action(async ({ json }: { json?: boolean }) => {
      const { cache } = await hubSettings();
      const lines: Line[] = (await cachedModels(cache)).map(({ name, variant, bytes, usedAt, commit, path }) => ({
        name,
        quant: variant.name,
        bytes,
        usedAt: new Date(usedAt).toISOString(),
        commit,
        path,
      }));
      const shipped = defaultModelPath();
      const size = (await stat(shipped).catch(() => undefined))?.size;
      if (size !== undefined)
        lines.push({ name: null, quant: 'Q8_0', bytes: size, usedAt: null, commit: null, path: shipped });
      process.stdout.write(json ? `${JSON.stringify(lines, null, 2)}\n` : `${render(lines)}\n`);
      if (!json) process.stderr.write(`${paint('dim', `cache: ${cache}`, process.stderr)}\n`);
    });
}

function render(lines: readonly Line[]): string {
  const rows = lines.map(({ name, quant, bytes, usedAt }) => [
    name ?? '(the model that ships)',
    quant,
    formatBytes(bytes),
    usedAt === null ? '' : usedAt.slice(0, 16).replace('T', ' '),
  ]);
  return table([['model', 'weights', 'size', 'last use (UTC)'].map((word) => paint('bold', word)), ...rows], 'llr');
}
