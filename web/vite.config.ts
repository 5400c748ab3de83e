/** Builds the chat page into one file, `web/dist/index.html`: no other request is needed to show it. */
import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';
import { viteSingleFile } from 'vite-plugin-singlefile';

/**
 * The page asks KaTeX for MathML, which browsers set themselves. What serves its HTML output alone, the builders, the
 * metrics of its fonts and its drawn shapes, would be a third of the page.
 */
const KATEX_CUTS: readonly [what: string, found: RegExp, instead: string][] = [
  // KaTeX reads the heights of T and A, in em, while it loads.
  [
    'metrics',
    /^var fontMetricsData = \{[\s\S]*?^\};/m,
    "var fontMetricsData = { 'Main-Regular': { 65: [0, 0.68333], 84: [0, 0.68333] } };",
  ],
  // It asks the metrics which letters an alphabet has.
  ['alphabets', /if \(getCharacterMetrics\(text, fontName, mode\)\)/, 'if (/^[\\p{L}\\p{N}]/u.test(text))'],
  ['shapes', /^var path = \{[\s\S]*?^\};/m, 'var path = {};'],
  ['builders', /^ {2}htmlBuilder(?:: [\w$]+,?|[:(][\s\S]*?^ {2}\},?)$/gm, ''],
];

function mathmlOnly(): Plugin {
  return {
    name: 'katex-mathml-only',
    transform(code, id) {
      if (!id.includes('katex/dist/katex.mjs')) return undefined;
      let smaller = code;
      for (const [what, found, instead] of KATEX_CUTS) {
        const before = smaller;
        smaller = smaller.replace(found, instead);
        if (smaller === before) throw new Error(`[web] this KaTeX has no ${what} to cut; look at web/vite.config.ts`);
      }
      return { code: smaller, map: null };
    },
  };
}

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [mathmlOnly(), viteSingleFile({ removeViteModuleLoader: true })],
  build: { target: 'es2023', modulePreload: false, outDir: 'dist', emptyOutDir: true, reportCompressedSize: false },
});
