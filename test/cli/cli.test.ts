/** The command line from outside: where output goes, exit codes, and one clear line for every mistake. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { load } from '../../src/index.ts';
import { build, tandem } from './tandem.ts';

const BACKEND = nativeProblem() ? ['--backend', 'reference'] : [];
const SUM = 'What is 9 + 0?';

let root: string;
beforeAll(async () => {
  build();
  root = await mkdtemp(join(tmpdir(), 'tandem-cli-'));
}, 60_000);
afterAll(() => rm(root, { recursive: true }));

describe('run', () => {
  test('the answer goes to stdout, the figures to stderr', async () => {
    const { code, stdout, stderr } = await tandem(['run', ...BACKEND, SUM]);
    expect(stdout).toBe('9 + 0, so 9.\n\n9 + 0 = 9\n');
    expect(stderr).toMatch(
      /^\nprompt \d+ tokens, [\d.]+ tok\/s · generation \d+ tokens, [\d.]+ tok\/s · first token [\d.]+ s\n$/,
    );
    expect(code).toBe(0);
  });

  test('the prompt from stdin, the answer as JSON', async () => {
    const { code, stdout, stderr } = await tandem(['run', ...BACKEND, '--json', 'What is', '-'], { input: '9 + 0?' });
    expect(JSON.parse(stdout)).toMatchObject({ text: '9 + 0 = 9', reasoning: '9 + 0, so 9.', finishReason: 'stop' });
    expect([code, stderr]).toEqual([0, '']);
  });

  test('several stop texts leave the prompt alone', async () => {
    const { stdout } = await tandem(['run', ...BACKEND, '--hide-thinking', '--stop', 'zzz', '--stop', ' = ', SUM]);
    expect(stdout).toBe('9 + 0\n');
  });

  test('Ctrl-C keeps what was said: exit code 130 and figures', async () => {
    const { code, stdout, stderr } = await tandem(
      ['run', ...BACKEND, '--raw', '--temperature', '100', '--seed', '1', 'hello'],
      { watch: (child) => child.killed || child.kill('SIGINT') },
    );
    expect(code).toBe(130);
    expect(stdout.length).toBeGreaterThan(1);
    expect(stderr).toMatch(/· seed 1 · stopped\n$/);
  });

  test('a reader that leaves ends it quietly', async () => {
    const { code, stderr } = await tandem(['explain'], { watch: (child) => child.stdout?.destroy() });
    expect([code, stderr]).toEqual([0, '']);
  });
});

describe('chat', () => {
  test('answers line after line; its own words are on stderr', async () => {
    const input = `${SUM}\n/stats\n/undo\n/undo\n/rest\nWhat is \\\n9 + 0?\n/bye\nnever asked\n`;
    const { code, stdout, stderr } = await tandem(['chat', ...BACKEND, '--hide-thinking'], { input });
    expect([code, stdout]).toEqual([0, '9 + 0 = 9\n9 + 0 = 9\n']);
    expect(stderr).toContain('the last question is forgotten\n\nthere is no question to take back');
    expect(stderr).toContain('there is no /rest; did you mean /reset?');
  });

  test('a question that is too long leaves the chat alive', async () => {
    const input = `${'water '.repeat(200)}\n${SUM}\n`;
    const { code, stdout, stderr } = await tandem(['chat', ...BACKEND, '-c', '100', '--hide-thinking'], { input });
    expect([code, stdout]).toEqual([0, '9 + 0 = 9\n']);
    expect(stderr).toMatch(
      /at most 99 tokens in a context of 100; .* larger --context; in a chat \/undo and \/reset make room/,
    );
  });
});

describe('logits', () => {
  test('writes little-endian f32 [T, V]', async () => {
    const out = join(root, 'logits.f32');
    const { code, stdout } = await tandem(['logits', ...BACKEND, '--ids', '0,5,6', '--out', out, '--json']);
    expect([code, JSON.parse(stdout)]).toEqual([0, { file: out, shape: [3, 1536], type: 'f32le', ids: [0, 5, 6] }]);
    const bytes = await readFile(out);
    const logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    expect(logits).toHaveLength(3 * 1536);
    // With an f32 cache, unlike `run`: what other engines are compared with has no rounding that nobody asked for.
    await using engine = await load(undefined, { backend: nativeProblem() ? 'reference' : 'native', kvType: 'f32' });
    expect(logits).toEqual(await engine.logits([0, 5, 6]));
  });

  test.skipIf(process.platform === 'win32')('a device stays a device', async () => {
    const { code } = await tandem(['logits', ...BACKEND, '--ids', '0', '--out', '/dev/null']);
    expect(code).toBe(0);
    expect((await stat('/dev/null')).isCharacterDevice()).toBe(true);
  });
});

test.skipIf(nativeProblem())('doctor looks at the machine, and measures a model', async () => {
  const { code, stdout } = await tandem(['doctor', '--model', 'models/jug/jug-Q8_0.gguf', '--tokens', '4', '--json']);
  const { findings, speed, bandwidth } = JSON.parse(stdout);
  expect(code).toBe(0);
  expect(findings.map(({ name }: { name: string }) => name)).toEqual(expect.arrayContaining(['processor', 'disk']));
  expect(bandwidth.all).toBeGreaterThan(1e8);
  expect(speed.tokensPerSecond).toBeGreaterThan(0);
  expect(speed.parts.experts.bytes).toBeGreaterThan(0);
});

test.skipIf(nativeProblem())('doctor looks above a cache whose path runs through a file', async () => {
  const { code, stdout, stderr } = await tandem(['doctor'], { env: { HF_HUB_CACHE: resolve('package.json', 'x') } });
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toContain(` free at ${process.cwd()}`);
});

test.skipIf(nativeProblem())('doctor names the disk of a cache that is not there yet', async () => {
  const env = { HF_HOME: join(tmpdir(), 'no', 'such', 'home'), HF_HUB_CACHE: '' };
  const { code, stdout, stderr } = await tandem(['doctor'], { env });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toContain(` free at ${tmpdir()}`);
});

describe.skipIf(nativeProblem())('verify', () => {
  test('finds every way of this machine right', async () => {
    const { code, stdout } = await tandem(['verify', '--ids', '5,6,7', '--json']);
    const { tokens, results } = JSON.parse(stdout);
    expect([code, tokens, results.filter(({ breach }: { breach?: string }) => breach)]).toEqual([0, 3, []]);
    expect(results.length).toBeGreaterThan(3);
  });

  test('refuses ids that the model does not have', async () => {
    const { code, stderr } = await tandem(['verify', '--ids', '5,99999']);
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining('[cli] verify runs over 1 to 2048 token ids below 1536; id 99999'),
    ]);
  });
});

test('synth writes a model that runs; a place that cannot be written is told before the work', async () => {
  const config = join(root, 'config.json');
  await writeFile(
    config,
    '{"model_type": "llama", "vocab_size": 272, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,' +
      '"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6}',
  );
  const out = join(root, 'tiny.gguf');
  expect((await tandem(['synth', config, out, '-q', 'q8_0', '--json'])).code).toBe(0);
  const inspected = JSON.parse((await tandem(['inspect', out, '--json'])).stdout);
  expect(inspected).toMatchObject({
    container: 'gguf',
    model: { architecture: 'llama', layers: 1, contextLength: 64 },
  });
  const ran = await tandem(['run', ...BACKEND, '-m', out, '--raw', '-n', '3', '--json', 'x']);
  expect(JSON.parse(ran.stdout).usage.completionTokens).toBeLessThanOrEqual(3);

  const folder = join(root, 'tiny-folder');
  expect((await tandem(['synth', config, folder, '-q', 'f8_e4m3'])).code).toBe(0);
  const inside = await tandem(['run', ...BACKEND, '-m', folder, '--raw', '-n', '3', '--json', 'x']);
  expect(JSON.parse(inside.stdout).usage.promptTokens).toBe(1);
  const wrong = await tandem(['synth', config, folder, '-q', 'q4_k_m']);
  expect(wrong.stderr).toMatch(
    /^\[cli\] a Hugging Face folder has weights in bf16, f8_e4m3, int4_g32; q4_k_m; tandem synth/,
  );

  const refused = await tandem(['synth', config, join(out, 'inside.gguf')]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/^\[formats\] cannot write .*; .*; check the path\n$/);
});

describe('a mistake gets one line and exit code 1', () => {
  test.each<[string, string[], RegExp]>([
    ['no prompt', ['run', ''], /^\[cli\] run needs a prompt; there is none; write tandem run "your question"/],
    [
      'a misspelt command',
      ['rnu', 'hi'],
      /^\[cli\] unknown command 'rnu'; did you mean run\?; tandem --help tells more/,
    ],
    [
      'help of a command that is none',
      ['help', 'nothing'],
      /^\[cli\] unknown command 'nothing'; tandem --help tells more/,
    ],
    [
      'a misspelt option',
      ['run', '--temprature', '1', 'hi'],
      /unknown option '--temprature'; did you mean --temperature\?/,
    ],
    ['an option of other programs', ['explain', '--ctx-size', '9'], /unknown option '--ctx-size'; use --context;/],
    ['a prompt with a dash', ['run', '- why?'], /comes after --: tandem run -- "- why\?"/],
    ['a model as prompt', ['run', 'm.gguf', 'hi'], /takes its model with --model; the prompt begins with m\.gguf/],
    ['no number', ['run', '--threads', 'abc', 'hi'], /argument 'abc' is invalid; it must be a number/],
    [
      'a number out of range',
      ['run', ...BACKEND, '--top-p', '2', 'hi'],
      /^\[engine\] --top-p is a number in \(0, 1\]; got 2/,
    ],
    [
      'a missing model',
      ['inspect', 'nope.gguf'],
      /cannot open nope\.gguf; there is no such file or folder; check the path/,
    ],
    [
      'ids out of range',
      ['logits', ...BACKEND, '--ids', '99999', '-o', 'x'],
      /^\[engine\] token 0 of ids .* got 99999/,
    ],
    [
      'an unwritable place',
      ['logits', '--ids', '1', '-o', '/nope/x'],
      /cannot write \/nope\/x; there is no such file or folder/,
    ],
    [
      'a KV budget too small',
      ['run', ...BACKEND, '--kv-budget', '1kB', 'hi'],
      /a KV budget of 1000 B: .*; raise the KV budget/,
    ],
  ])('%s', async (_, args, says) => {
    const { code, stdout, stderr } = await tandem(args, { cwd: root });
    expect(stderr).toMatch(says);
    expect([code, stdout, stderr.trim().split('\n').length]).toEqual([1, '', 1]);
  });

  test.skipIf(nativeProblem())('an instruction set that there is not', async () => {
    const { code, stderr } = await tandem(['run', 'hi'], { env: { TANDEM_ISA: 'nonsense' } });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^\[native\] an instruction set is scalar, avx2, avx512 or amx; given TANDEM_ISA=nonsense; .*\n$/,
    );
  });

  test.skipIf(process.platform !== 'linux')('a full disk', async () => {
    const { code, stderr } = await tandem(['logits', ...BACKEND, '--ids', '1', '-o', '/dev/full']);
    expect([code, stderr]).toEqual([
      1,
      '[formats] cannot write /dev/full; the disk is full; free space, or choose another folder\n',
    ]);
  });

  test('TANDEM_DEBUG adds the stack', async () => {
    const { stderr } = await tandem(['inspect', 'nope.gguf'], { env: { TANDEM_DEBUG: '1' } });
    expect(stderr).toMatch(/\n {4}at /);
  });
});

test('every command has help with examples', async () => {
  const commands = [
    'run',
    'chat',
    'inspect',
    'explain',
    'compare',
    'verify',
    'doctor',
    'logits',
    'perplexity',
    'synth',
    'bench',
  ];
  const helps = await Promise.all(commands.map((command) => tandem([command, '--help'])));
  for (const [index, { code, stdout }] of helps.entries()) {
    expect(code).toBe(0);
    expect(stdout).toContain(`\nExamples:\n  tandem ${commands[index]}`);
  }
});
