// Compares Tandem's logits with node-llama-cpp's on small random models of every architecture (see oracle.ts):
//   (cd bench/peers && npm install) && npm run build && node bench/oracle.mjs [--peers FOLDER]
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const root = fileURLToPath(new URL('..', import.meta.url));
const { module } = await runnerImport(`${root}bench/oracle.ts`, {
  root,
  configFile: false,
  logLevel: 'error',
  oxc: { target: 'es2023' },
});
const at = process.argv.indexOf('--peers');
const peers = at < 0 ? `${root}bench/peers` : resolve(process.argv[at + 1]);
process.chdir(root);
process.exitCode = await module.oracle(peers);
