/**
 * The decoders of `native/quant/` against those beside this file: same bits on the vectors and on every edge row.
 * Compiles `native/test/quant_test.cc` and the code books (three seconds), so it needs a C++20 compiler; nothing else of the native core.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FORMAT_NAMES, rowBytes } from '../dtype.ts';
import { EDGE_COLUMNS, edgeRows } from './edge-rows.ts';
import { quantFormat } from './index.ts';
import { decodeScales, encodeScales } from './scales.ts';

const compiler = process.env.CXX ?? 'c++';
const hasCompiler = spawnSync(compiler, ['--version']).status === 0;
const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const vectors = Object.keys(JSON.parse(readFileSync(path('fixtures/index.json'), 'utf8')));

describe.skipIf(!hasCompiler)(
  `native decoders${hasCompiler ? '' : ` (skipped: no C++ compiler "${compiler}")`}`,
  () => {
    let folder = '';
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), 'tandem-quant-'));
      const flags = ['-std=c++20', '-O1', '-ffp-contract=off', '-Wall', '-Wextra', '-Werror'];
      const sources = ['test/quant_test.cc', 'quant/grids.cc'].map((file) => path(`../../../native/${file}`));
      const built = spawnSync(compiler, [...flags, ...sources, '-o', join(folder, 'quant_test')], { encoding: 'utf8' });
      expect(built.stderr).toBe('');
      expect(built.status).toBe(0);
    }, 120_000); // a busy machine compiles slowly
    afterAll(() => rmSync(folder, { recursive: true }));

    function run(...args: string[]): void {
      const result = spawnSync(join(folder, 'quant_test'), args, { encoding: 'utf8' });
      expect(result.stdout).toBe('');
      expect(result.status).toBe(0);
    }

    it('convert halves by their laws', () => run());

    it.each(vectors)('%s decodes the vectors', (name) => {
      run(name.toLowerCase(), '256', path(`fixtures/${name}.blocks`), path(`fixtures/${name}.f32`));
    });

    it.each(FORMAT_NAMES)('%s decodes every code under every edge scale', (name) => {
      const format = quantFormat(name);
      const rows = edgeRows(format);
      const size = rowBytes(format, EDGE_COLUMNS);
      const count = rows.length / size;
      const perRow = format.scaleBlock === undefined ? 0 : EDGE_COLUMNS / format.scaleBlock.columns;
      const edges = [1, 0, -0, 1e-45, -1e-40, 1.17e-38, 3.4e38, -3.4e38, -0.3, Infinity, -Infinity, NaN, 0.1];
      const type = format.scaleBlock?.type ?? 'f32';
      const floats = Float32Array.from({ length: count * perRow }, (_, i) => edges[i % edges.length]);
      // Of a byte every value, of wider scales the edges.
      const stored = type === 'e8m0' ? Uint8Array.from(floats, (_, i) => i) : encodeScales(type, floats);
      const scales = decodeScales(type, stored);
      const out = new Float32Array(count * EDGE_COLUMNS);
      for (let row = 0; row < count; row++) {
        const to = out.subarray(row * EDGE_COLUMNS, (row + 1) * EDGE_COLUMNS);
        format.decodeRow(
          rows.subarray(row * size, (row + 1) * size),
          to,
          scales.subarray(row * perRow, (row + 1) * perRow),
        );
      }
      const files = ['blocks', 'f32', 'scales'].map((kind) => join(folder, `${name}.${kind}`));
      writeFileSync(files[0], rows);
      writeFileSync(files[1], new Uint8Array(out.buffer));
      writeFileSync(files[2], stored);
      run(name, String(EDGE_COLUMNS), files[0], files[1], ...(perRow === 0 ? [] : [files[2]]));
    });
  },
);
