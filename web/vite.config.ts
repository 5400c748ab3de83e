/** Builds the chat page into one file, `web/dist/index.html`: no other request is needed to show it. */
import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';
import { viteSingleFile } from 'vite-plugin-singlefile';

/**
 * The page asks KaTeX for MathML, which browsers set themselves: the metrics of KaTeX's fonts and its drawn shapes are
 * for the HTML output only and would be a third of the page.
 */
function withoutMetrics(): Plugin {
  return {
    name: 'katex-mathml-only',
    transform(code, id) {
      if (!id.includes('katex/dist/katex.mjs')) return undefined;
      let smaller = code;
      for (const table of ['fontMetricsData', 'path']) {
        const found = new RegExp(`^var ${table} = \\{[\\s\\S]*?^\\};`, 'm');
        if (!found.test(smaller)) throw new Error(`[web] KaTeX has no table ${table} any more; look at vite.config.ts`);
        smaller = smaller.replace(found, () => `var ${table} = {};`);
      }
      return { code: smaller, map: null };
    },
  };
}

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [withoutMetrics(), viteSingleFile({ removeViteModuleLoader: true })],
  build: { target: 'es2023', modulePreload: false, outDir: 'dist', emptyOutDir: true, reportCompressedSize: false },
});
