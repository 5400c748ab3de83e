// npm run bench -- WHAT …: tandem bench, its result also written into bench/results/ with machine and commit.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
if (!existsSync(cli)) {
  console.error('[bench] the package is built first; there is no dist/cli.js; run npm run build');
  process.exit(1);
}
const words = process.argv.slice(2);
const asksForHelp = words.length === 0 || words.includes('--help') || words.includes('-h');
process.argv = [
  process.argv[0],
  cli,
  'bench',
  ...words,
  ...(asksForHelp || words.includes('--record') ? [] : ['--record']),
];
await import(cli);
