/**
 * Floors are kept here: a file imports its own floor's room or floors below, never above; floors 0–4 stay free of
 * `node:` except where ARCHITECTURE.md says so. The table is ARCHITECTURE.md's.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const source = fileURLToPath(new URL('../src', import.meta.url));

/** First match wins; paths relative to src/. */
const FLOORS: readonly [prefix: string, floor: number][] = [
  ['errors.ts', 0],
  ['nearest.ts', 0],
  ['formats/', 0],
  ['program/', 1],
  ['ops/', 2],
  ['models/', 3],
  ['backend/', 3],
  ['text/', 3],
  ['placement/', 4],
  ['engine/', 5],
  ['hub/', 5],
  ['index.ts', 6],
  ['transformers/', 6],
  ['server/', 6],
  ['cli.ts', 7],
  ['commands/', 7],
];

/** The only files of floors 0–4 that may import `node:` modules: they are the doors to the file system and to native. */
const DOORS = new Set([
  'formats/file-source.ts',
  'formats/file-sink.ts',
  'backend/native/load.ts',
  'backend/native/gpus.ts',
]);

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return files(path);
    return path.endsWith('.ts') && !path.endsWith('.test.ts') ? [path] : [];
  });
}

function floorOf(path: string): number {
  const found = FLOORS.find(([prefix]) => path.startsWith(prefix));
  if (!found) throw new Error(`src/${path} is on no floor; give it one in ARCHITECTURE.md and here`);
  return found[1];
}

function imports(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  return [
    ...text.matchAll(
      /(?:^|\n)\s*(?:import|export)\b[^'"]*?from\s*['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]|(?:^|\n)\s*import\s*['"]([^'"]+)['"]/g,
    ),
  ].map((match) => match[1] ?? match[2] ?? match[3]);
}

describe('the house', () => {
  const all = files(source).map((path) => relative(source, path));

  it('is found at all', () => {
    expect(all.length).toBeGreaterThan(20);
    expect(all.flatMap((path) => imports(join(source, path))).length).toBeGreaterThan(50);
  });

  it.each(all)('%s imports only its own floor and floors below', (path) => {
    const floor = floorOf(path);
    for (const specifier of imports(join(source, path))) {
      if (specifier.startsWith('node:')) {
        expect(floor >= 5 || DOORS.has(path), `src/${path} (floor ${floor}) imports ${specifier}`).toBe(true);
      } else if (specifier.startsWith('.')) {
        const target = relative(source, resolve(dirname(join(source, path)), specifier));
        expect(floorOf(target), `src/${path} (floor ${floor}) imports src/${target}`).toBeLessThanOrEqual(floor);
      }
    }
  });
});
