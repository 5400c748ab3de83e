/** Rules and registered kernels as `load` takes them. On the reference, which every machine has. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test } from 'vitest';
import { load, registerKernel } from '../../src/index.ts';
import { OPS } from '../../src/ops/index.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-rules-'));
afterAll(() => rmSync(folder, { recursive: true }));

const forget: (() => void)[] = [];
afterEach(() => {
  for (const each of forget.splice(0)) each();
});

const REFERENCE = { backend: 'reference', contextLength: 64 } as const;

test('what a kernel throws ends the request that met it; its company and the engine go on', async () => {
  const poison = 77;
  forget.push(
    registerKernel({
      name: 'wary-embed',
      op: 'embed',
      run(context) {
        if (context.batch.tokens.includes(poison)) throw new RangeError('token 77');
        OPS.get('embed')!.reference(context);
      },
    }),
  );
  const rules = [{ match: { op: 'embed' }, place: { kernel: 'wary-embed' } }] as const;
  await using engine = await load(undefined, { ...REFERENCE, rules });
  const options = { maxTokens: 1, temperature: 0, ignoreEos: true };
  const [good, bad] = await Promise.allSettled([
    engine.generate([5, 6, 7], options),
    engine.generate([5, poison, 7], options),
  ]);
  expect(bad).toMatchObject({ status: 'rejected', reason: { message: 'token 77' } });
  expect(good).toMatchObject({ status: 'fulfilled', value: { finishReason: 'length' } });
  expect((await engine.generate([5, 6, 7], options)).tokens).toHaveLength(1);
  expect(engine.stats().running).toBe(0);
}, 60_000);

test('rules that decide nothing are warnings, not errors', async () => {
  const path = join(folder, 'mine.yaml');
  writeFileSync(path, '- match: { op: glu, layers: "70-80" }\n  place: { activation: f32 }\n- place: { tiles: off }\n');
  await using engine = await load(undefined, { ...REFERENCE, rules: path });
  expect(engine.info.warnings).toEqual(['mine.yaml:1: this rule matches no step of deepseek-v3']);
  await using plain = await load(undefined, { ...REFERENCE, rules: 'cpu' });
  expect(plain.info.warnings).toEqual([]);
});

test.each([
  ['a file that is not there', 'nowhere.yaml', 'FILE_NOT_FOUND', 'there is no nowhere.yaml'],
  ['a folder', folder, 'FILE_IO', 'it is a folder'],
  [
    'a number',
    5 as never,
    'REQUEST_INVALID',
    'rules are a list, the name of a shipped rule file or a path; got number',
  ],
  [
    'a rule of another kind',
    [{ place: { devices: 'cpu' } } as never],
    'FORMAT_INVALID',
    'rules[0].place.devices: "devices", did you mean device?',
  ],
  ['a GPU', 'one-gpu', 'PLACEMENT_IMPOSSIBLE', 'a device of this machine: cpu'],
])('%s is refused', async (_, rules, code, message) => {
  const loading = load(undefined, { ...REFERENCE, rules });
  await expect(loading).rejects.toMatchObject({ code });
  await expect(loading).rejects.toThrow(message);
});

test.each([
  [{ name: 'native', op: 'glu' }, 'there is a kernel native already'],
  [{ name: 'My_Kernel', op: 'glu' }, 'lower-case words joined by -; My_Kernel'],
  [{ name: 'mine', op: 'gluu' }, 'op "gluu"; did you mean glu?'],
  [{ name: 'mine', op: 'sample' }, 'op "sample"'],
  [{ name: 'mine', op: 'glu', run: 5 }, 'kernel mine has none'],
])('%j is no kernel', (kernel, message) => {
  expect(() => registerKernel({ run() {}, ...kernel } as never)).toThrow(message);
});
