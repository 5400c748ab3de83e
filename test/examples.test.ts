/** Every example runs and says what it should. On machines without the native core they run on `reference`. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tandem from 'tandem';
import * as transformers from 'tandem/transformers';
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
  '07-transformers.ts': [
    /^9 - 7, so 2\.\n<\/think>\n\n9 - 7 = 2$/m,
    /^in \d+ pieces, the first: "9 "$/m,
    /^"What is 3 \+ 4\?.+"$/m,
  ],
  '08-own-kernel.ts': [/^3 \+ 4 = 7; \d{2,} rows were computed here$/m],
};

afterEach(() => {
  vi.restoreAllMocks();
  vi.doUnmock('tandem');
  vi.doUnmock('tandem/transformers');
});

test('every example is expected here', () => {
  const files = readdirSync(folder).filter((file) => file.endsWith('.ts'));
  expect(files).toEqual(Object.keys(EXPECTED));
});

test.each(Object.entries(EXPECTED))('%s', { timeout: 120_000 }, async (file, expected) => {
  if (nativeProblem()) {
    vi.doMock('tandem', () => ({
      ...tandem,
      load: (path?: string, options?: tandem.LoadOptions) => tandem.load(path, { backend: 'reference', ...options }),
    }));
    vi.doMock('tandem/transformers', () => ({
      ...transformers,
      pipeline: (task: 'text-generation', model: string | null, options?: transformers.PipelineOptions) =>
        transformers.pipeline(task, model, { backend: 'reference', ...options }),
    }));
  }
  const lines: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((line: string) => lines.push(line));
  await import(fileURLToPath(new URL(file, folder)));
  const output = lines.join('\n');
  for (const pattern of expected) expect(output).toMatch(pattern);
});

test('the guides show the examples as they are', () => {
  const guides = readdirSync(new URL('../docs/guide/', import.meta.url)).filter((file) => file.endsWith('.md'));
  const text = guides.map((file) => readFileSync(new URL(`../docs/guide/${file}`, import.meta.url), 'utf8')).join('\n');
  for (const file of Object.keys(EXPECTED))
    expect(text).toContain(`\`\`\`ts\n${readFileSync(new URL(file, folder), 'utf8')}\`\`\``);
});
