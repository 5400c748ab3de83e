// Writes the tape of bench/gpu/replay.cc: small models, placed in every way, for machines with a card and without Node.
//   npm run build:ts && node bench/gpu/record.mjs OUT
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { module } = await runnerImport(`${root}bench/gpu/record.ts`, {
  root,
  configFile: false,
  logLevel: 'error',
  oxc: { target: 'es2023' },
});
await module.record(process.argv[2] ?? `${root}build/gpu/models.tape`, root);
