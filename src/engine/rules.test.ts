/** Rule files as a tester brings them: not UTF-8, without an end, with patterns that never finish. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { readRules, shippedRules } from './rules.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-rule-files-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(content: string | Uint8Array): string {
  const path = join(folder, 'mine.yaml');
  writeFileSync(path, content);
  return path;
}

const RULE = '- match: { op: experts }\n  place: { device: cpu }\n';

describe('readRules', () => {
  test('those that ship are read', async () => {
    for (const name of await shippedRules()) expect((await readRules(name)).length).toBeGreaterThan(0);
  });

  test('a byte order mark and the lines of another system are no matter', async () => {
    const [rule] = await readRules(file(`\ufeff${RULE.replaceAll('\n', '\r\n')}`));
    expect(rule).toMatchObject({ match: { op: ['experts'] }, place: { device: 'cpu' }, origin: 'mine.yaml:1' });
    await expect(readRules(file(`\ufeff${RULE.replace('cpu', 'cpx')}`))).rejects.toThrow('mine.yaml:2:20: "cpx"');
  });

  test.each<[string, () => string, RegExp]>([
    ['another encoding', () => file(Buffer.from(RULE, 'utf16le')), /a list of rules; mine\.yaml|is YAML; mine\.yaml/],
    ['bytes', () => file(Uint8Array.of(0xff, 0xfe, 0x2d, 0)), /a rule file is text in UTF-8; .*mine\.yaml is not/],
    ['ten megabytes', () => file(RULE.repeat(200_000)), /a rule file has at most 1 MiB; .*mine\.yaml is larger/],
    ['a device without an end', () => '/dev/zero', /at most 1 MiB; \/dev\/zero is larger/],
    ['a folder', () => folder, /rules are a YAML file, or one that ships: .*; .*folder/],
  ])('%s is refused', async (_, given, message) => {
    await expect(readRules(given())).rejects.toThrow(message);
  });

  test.each(['^(([a-z_.0-9])+.)+x$', '.*.*.*.*.*.*.*.*.*.*x!', '(?:model.?)*(?:.*)*$q'])(
    '%s, which never ends, is refused by its line',
    async (name) => {
      // biome-ignore format: one thought a line
      const path = file(`${RULE}- match: { name: '${name}' }\n  place: { device: cpu }\n`);
      await expect(readRules(path)).rejects.toMatchObject({
        code: 'FORMAT_INVALID',
        message: expect.stringContaining(`mine.yaml:3: /${name}/u was not done`),
      });
      await expect(readRules([{ match: { name }, place: { device: 'cpu' } }])).rejects.toThrow('rules[0]: ');
    },
    30_000,
  );
});
