import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import { build, tandem } from './tandem.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-explain-'));
afterAll(() => rmSync(folder, { recursive: true }));
beforeAll(build, 60_000);

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const GPUS = file('gpus.json', '{"devices": ["cuda:0", {"name": "cuda:1", "memory": 24e9}]}');

describe('explain', { timeout: 60_000 }, () => {
  test('layers that are the same share their lines, each step says why', async () => {
    const rules = file('a.yaml', '- match: { op: experts, layers: "2-last" }\n  place: { tiles: off }\n');
    const { code, stdout, stderr } = await tandem(['explain', '--rules', rules]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.match(/^layers? .*$/gm)).toEqual(['layer 0', 'layer 1', 'layers 2-4']);
    expect(stdout.match(/^ {2}mlp\.experts .*$/gm)?.map((line) => line.split(/ {2,}/).at(-1))).toEqual([
      'default',
      'a.yaml:1',
    ]);
    expect(stdout).toMatch(/^cpu {2}weights 17\.3 MB {2}cache 1\.60 kB a token {2}buffers of 2048 rows /m);
  });

  test('another machine: copies, tasks and what lies where', async () => {
    const { code, stdout } = await tandem(['explain', '--rules', 'two-gpus', '--machine', GPUS]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /mlp\.experts\.submit.*\n.*mlp\.experts +experts.*\n(?:.*shared_experts.*\n)+.*mlp\.experts\.wait/,
    );
    expect(stdout).toMatch(/^cuda:0 +weights .* rows [\d.]+ MB$/m);
    expect(stdout).toMatch(/^cuda:1 +weights .* of 24\.0 GB: room for a cache of \d{8} tokens$/m);
    const small = file('small.json', '{"devices": [{"name": "cuda:0", "memory": 1e6}]}');
    const full = await tandem(['explain', '--rules', 'one-gpu', '--machine', small]);
    expect(full.stdout).toMatch(/^cuda:0 .* does not fit 1\.00 MB$/m);
    expect(stdout).toMatch(/model\.embed_tokens\.to\.cuda:0 +copy +cuda:0 .* computed on cpu, read on cuda:0/);
  });

  test('phases on different devices are shown apart; --json has both', async () => {
    const rules = file(
      'b.yaml',
      '- match: { op: experts }\n  prefill: { device: cuda:0 }\n  decode: { device: cpu }\n',
    );
    const { stdout } = await tandem(['explain', '--rules', rules, '--machine', GPUS]);
    expect(stdout).toMatch(/^passes that read prompts$[\s\S]*^passes that generate$/m);
    const json = JSON.parse((await tandem(['explain', '--json', '--rules', rules, '--machine', GPUS])).stdout);
    const experts = ({ op }: { op: string }) => op === 'experts';
    expect(json.steps.find(experts)).toMatchObject({
      placement: { device: 'cuda:0' },
      kernel: 'native',
      why: 'b.yaml:1',
    });
    expect(json.decode.steps.find(experts)).toMatchObject({ placement: { device: 'cpu' } });
  });

  test('a model that is only described, before a download; a machine whose GPU is left alone', async () => {
    const profile = {
      cpu: { isa: 'avx2', cores: 8 },
      memory: { bytes: 64e9, bandwidth: 60e9 },
      gpus: [{ device: 'cuda:0', memoryBytes: 24e9, bandwidth: 1e12, bf16: 1e14 }],
    };
    const machine = file('described.json', JSON.stringify(profile));
    const args = ['explain', '--machine', machine, '-q', 'q8_0'];
    const known = await tandem([...args, 'qwen3-30b-a3b']);
    expect({ code: known.code, stderr: known.stderr }).toEqual({ code: 0, stderr: '' });
    expect(known.stdout).toMatch(/mlp\.experts +experts +cuda:0 .* q8_0 .*automatic: the VRAM/);
    const config = file('config.json', JSON.stringify(PUBLIC_CONFIGS['qwen3-30b-a3b']));
    const described = await tandem([...args, config, '--vram', '0']);
    expect(described.stdout).not.toContain('cuda');
    expect(described.stdout).toMatch(/budget\nall 32\.5 GB of weights lie in memory\n$/);
    const broken = await tandem(['explain', file('broken.json', '[]')]);
    expect(broken.code).toBe(1);
    expect(broken.stderr).toMatch(
      /^\[cli\] a description of a model is the config\.json .*broken\.json: it holds no object/,
    );
  });

  test('without rules a machine with a GPU is placed automatically, within the budget, and says why', async () => {
    const profile = {
      cpu: { isa: 'avx2', cores: 8 },
      memory: { bytes: 64e9, bandwidth: 60e9 },
      gpus: [{ device: 'cuda:0', memoryBytes: 24e9, bandwidth: 1e12, bf16: 1e14 }],
    };
    const machine = file('server.json', JSON.stringify(profile));
    const whole = await tandem(['explain', '--machine', machine]);
    expect(whole.stdout).toMatch(/mlp\.experts +experts +cuda:0 .*automatic: all 17 MB fit the VRAM/);
    const tight = await tandem(['explain', '--machine', machine, '--vram', '25MB', '-c', '64', '--rules', 'cpu']);
    expect(tight.stdout).not.toContain('automatic');
    const none = await tandem(['explain', '--machine', machine, '--vram', '1MB']);
    expect(none.stdout).not.toContain('cuda');
    expect(none.stdout).toMatch(
      /budget\ndense weights and cache exceed the 1 MB of VRAM: all 17 MB of weights lie in memory\n$/,
    );
  });

  test('rules that put more on a device than it has memory: shown, then refused with numbers', async () => {
    const machine = file('small.json', '{"devices": ["cpu", {"name": "cuda:0", "memory": 24e9}]}');
    const rules = file(
      'much.yaml',
      '- match: { op: [embed, sample] }\n  place: { device: cpu }\n- place: { device: cuda:0 }\n',
    );
    const { code, stdout, stderr } = await tandem(['explain', 'deepseek-v3', '--rules', rules, '--machine', machine]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^cuda:0 .*does not fit 24\.0 GB$/m);
    expect(stderr).toMatch(
      /^\[placement\] what lies on cuda:0 fits its 24\.0 GB; much\.yaml:3 puts 40\d GB there; weights 40\d GB, .*; place the experts of 1 instead of 58 layers there, or take a shorter context\n$/,
    );
  });

  test('--all is the Program itself', async () => {
    const { stdout } = await tandem(['explain', '--all', '--rules', 'cpu']);
    expect(stdout).toMatch(/^%0 \[T,256\] = embed .* @cpu:f32 ; model\.embed_tokens$/m);
  });
});

describe('rules that cannot be', { timeout: 60_000 }, () => {
  test.each([
    [
      'a misspelt op',
      '- match: { op: expert }\n  place: { device: cpu }',
      /c\.yaml:1:16: "expert", did you mean experts\?/,
    ],
    [
      'a device that is not here',
      '- place: { device: cuda:0 }',
      /a device of this machine: cpu; c\.yaml:1 places model\.embed_tokens/,
    ],
    [
      'a file of KTransformers',
      '- match: { class: torch.nn.Linear }\n  replace: { class: x }',
      /^\[placement\] .*c\.yaml/,
    ],
  ])('%s', async (_, text, message) => {
    const { code, stdout, stderr } = await tandem(['run', '--rules', file('c.yaml', text), 'hi']);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('a name that does not ship', async () => {
    const { code, stderr } = await tandem(['explain', '--rules', 'one-gpuu']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/cpu, .*two-gpus; there is no one-gpuu; did you mean one-gpu\?/);
  });

  test('one that matches nothing is told, and the rest goes on', async () => {
    const rules = file('d.yaml', '- match: { name: nothing }\n  place: { tiles: off }');
    const { code, stderr, stdout } = await tandem([
      'run',
      '--no-server',
      '--backend',
      'reference',
      '-n',
      '1',
      '--rules',
      rules,
      'hi',
    ]);
    expect(code).toBe(0);
    expect(stderr).toContain('[placement] d.yaml:1: this rule matches no step of deepseek-v3');
    expect(stdout).not.toBe('');
  });
});
