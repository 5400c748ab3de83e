/** Every example runs and says what it should. On machines without the native core they run on `reference`. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tandem from 'tandem';
import { afterEach, expect, test, vi } from 'vitest';
import { nativeProblem } from '../src/backend/native/load.ts';

const folder = new URL('../examples/', import.meta.url);

/** What each example prints, figures aside. */
const EXPECTED: Record<string, RegExp[]> = {
  '01-generate.ts': [/^3 \+ 4, so 7\.\n<\/think>\n\n3 \+ 4 = 7$/m, /^19 tokens, \d+ tok\/s, ended by stop$/m],
  '02-chat.ts': [
    /^What can you do\?\n {2}\(.+\)\n {2}.*puzzles/m,
    /^What is 9 - 7\?\n {2}\(9 - 7, so 2\.\)\n {2}9 - 7 = 2$/m,
  ],
  '03-abort.ts': [/^stopped after: Jugs 3 L and 5 L/m, /^running: 0$/m],
  '04-tool-call.ts': [/^get_weather\(\{"city": "\w+"\}\)$/m, /^looked outside in \w+$/m, /21 degrees/],
  '05-logprobs.ts': [/^"2" +\d+\.\d % {3}of "2" \d+\.\d %, ".+" \d+\.\d %, ".+" \d+\.\d %$/m],
  '06-many-at-once.ts': [/ = 8 {3}\(\d+ tokens\)/, /^alone, the same: true$/m, /^\d+ rows in \d+ passes$/m],
};

afterEach(() => {
  vi.restoreAllMocks();
  vi.doUnmock('tandem');
});

test('every example is expected here', () => {
  const files = readdirSync(folder).filter((file) => file.endsWith('.ts'));
  expect(files).toEqual(Object.keys(EXPECTED));
});

test.each(Object.entries(EXPECTED))('%s', { timeout: 120_000 }, async (file, expected) => {
  if (nativeProblem())
    vi.doMock('tandem', () => ({
      ...tandem,
      load: (path?: string, options?: tandem.LoadOptions) => tandem.load(path, { backend: 'reference', ...options }),
    }));
  const lines: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((line: string) => lines.push(line));
  await import(fileURLToPath(new URL(file, folder)));
  const output = lines.join('\n');
  for (const pattern of expected) expect(output).toMatch(pattern);
});

test('the guide shows the examples as they are', () => {
  const guide = readFileSync(new URL('../docs/guide/api.md', import.meta.url), 'utf8');
  for (const file of Object.keys(EXPECTED))
    expect(guide).toContain(`\`\`\`ts\n${readFileSync(new URL(file, folder), 'utf8')}\`\`\``);
});
