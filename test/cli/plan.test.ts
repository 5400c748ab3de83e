/** `tandem plan` from outside: files, descriptions, repositories, machines that are not this one. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { defaultModelPath } from '../../src/index.ts';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import type { Plan } from '../../src/placement/plan.ts';
import type { MachineProfile } from '../../src/placement/profile.ts';
import { MockHub } from '../hub/mock-hub.ts';
import { build, tandem } from './tandem.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-plan-cli-'));
const at = (name: string) => join(folder, name);
const GB = 1e9;
const SERVER = {
  name: 'two sockets',
  cpu: { isa: 'amx', tiles: 'amx', cores: 64 },
  memory: { bytes: 512 * GB, bandwidth: 614 * GB, nodes: 2 },
  gpus: [{ device: 'cuda:0', name: 'RTX 4090', memoryBytes: 24 * GB, bandwidth: 1008 * GB, bf16: 165e12 }],
  disk: { bandwidth: 5 * GB },
};
const LAPTOP = {
  cpu: { isa: 'avx2', cores: 8 },
  memory: { bytes: 16 * GB, bandwidth: 60 * GB },
  disk: { bandwidth: 2 * GB },
};
let hub: MockHub;

interface Planned {
  readonly quant: string;
  readonly fileBytes?: number;
  readonly sizes: { readonly moeLayers: number; readonly experts: number; readonly chosen: number };
  readonly plan: Plan;
}
interface Printed {
  readonly code: number | null;
  readonly model: string;
  readonly source: string;
  readonly advice: { readonly quant: string };
  readonly instead: readonly string[];
  readonly quants: Planned[];
  readonly machine: MachineProfile;
}

beforeAll(async () => {
  build();
  writeFileSync(at('server.json'), JSON.stringify(SERVER));
  writeFileSync(at('laptop.json'), JSON.stringify(LAPTOP));
  writeFileSync(at('qwen.json'), JSON.stringify(PUBLIC_CONFIGS['qwen3-30b-a3b']));
  mkdirSync(at('folder'));
  writeFileSync(at('folder/config.json'), JSON.stringify({ ...PUBLIC_CONFIGS['deepseek-v3'], quantization_config: { quant_method: 'fp8' } })); // biome-ignore format: one line
  hub = await MockHub.start();
});
afterAll(async () => {
  await hub.close();
  rmSync(folder, { recursive: true });
});

/** The JSON of a plan on a machine of a file. */
async function planned(machine: string, ...args: string[]): Promise<Printed> {
  const { code, stdout, stderr } = await tandem(['plan', ...args, '--machine', at(machine), '--json']);
  expect(stderr).toBe('');
  return { code, ...JSON.parse(stdout) };
}
const byQuant = (quants: Planned[], name: string) => quants.find(({ quant }) => quant === name)!;

describe('a known model or a description', () => {
  test('the standard mixes on a server with a card: the advice first, then a table', async () => {
    const { code, stdout, stderr } = await tandem(['plan', 'deepseek-v3', '--machine', at('server.json')]);
    expect([code, stderr]).toEqual([0, '']);
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(
      /^deepseek-v3: take q5_k: the most bits \(5\.\d a weight\) that answer as fast as people read; about \d/,
    );
    expect(lines[1]).toMatch(
      /^two sockets: 64 cores \(amx\), 63 threads, 508 GB of 512 GB available at 614 GB\/s by its data sheet, RTX 4090 24\.0 GB, disk 5\.00 GB\/s/,
    );
    expect(lines[3]).toMatch(
      /^ +quant +size +bits +fits +RAM +VRAM +context +load +prefill tok\/s +decode tok\/s +limited by$/,
    );
    expect(stdout).toMatch(/^→ {2}q5_k +\d+ GB +5\.\d +yes +4\d\d GB +1\d\.\d GB .*experts in memory$/m);
    expect(stdout).toMatch(/^ +bf16 +1\.34 TB +16\.0 +on disk /m);
    expect(stdout).toMatch(
      /\nq5_k: the VRAM \(22\.8 GB\) holds dense weights, cache and no experts; .*a token takes \d/,
    );
  });

  test('--json: sizes, fit, predictions with their parts, advice, the machine', async () => {
    const result = await planned('server.json', 'deepseek-v3', '--context', '8192');
    expect(result).toMatchObject({
      code: 0,
      model: 'deepseek-v3',
      source: 'description',
      advice: { quant: 'q5_k' },
      machine: { cpu: { isa: 'amx' } },
    });
    const { sizes, plan } = byQuant(result.quants, 'q4_k_m');
    expect(sizes).toMatchObject({ moeLayers: 58, experts: 256, chosen: 8 });
    expect(plan.fit).toMatchObject({ kind: 'hybrid', fits: 'memory', context: 8192 });
    const { low, expected, high } = plan.decode!.tokensPerSecond;
    expect(low).toBeLessThan(expected);
    expect(expected).toBeLessThan(high);
    expect(plan.loadSeconds).toBeCloseTo(plan.weightBytes / (5 * GB), 6);
  });

  test('a config.json, a folder that has nothing else; as it is published comes first', async () => {
    const qwen = await planned('laptop.json', at('qwen.json'), '-c', '4096');
    expect(byQuant(qwen.quants, 'bf16').plan.fit.fits).toBe('disk');
    expect(byQuant(qwen.quants, qwen.advice.quant).plan.fit.fits).toBe('memory');
    const fp8 = await planned('server.json', at('folder'));
    expect(fp8.quants[0]).toMatchObject({ quant: 'f8_e4m3' });
    expect(fp8.quants[0].plan.weightBytes).toBeGreaterThan(600 * GB);
    const thinking = await planned('server.json', 'kimi-k2-thinking');
    expect(thinking.quants[0]).toMatchObject({ quant: 'int4_g32', sizes: { experts: 384 } });
    expect((await planned('server.json', 'gpt-oss-120b')).quants[0].quant).toBe('mxfp4');
  });

  test('budgets: --ram (also --memory) and --vram', async () => {
    const whole = await planned('server.json', 'deepseek-v3');
    const { advice, quants } = await planned('server.json', 'deepseek-v3', '--ram', '200GB', '--vram', '12GB');
    expect(whole.advice.quant).not.toBe(advice.quant);
    expect(byQuant(quants, advice.quant).plan.fit.ramLimit).toBe(200 * GB);
    expect(byQuant(quants, advice.quant).plan.fit.vram).toBeLessThanOrEqual(12 * GB);
    const memory = await planned('server.json', 'deepseek-v3', '--memory', '200GB', '--vram', '12GB');
    expect(memory.advice).toEqual(advice);
  });

  test('what runs nowhere, and what runs too slowly: said first, with what would do; exit code 1', async () => {
    const none = await tandem(['plan', 'kimi-k2', '--machine', at('laptop.json'), '--ram', '4GB']);
    expect(none.code).toBe(1);
    expect(none.stdout).toMatch(
      /^kimi-k2: not on this machine: even \w+ needs \d\.\d+ GB of memory, its experts on the disk; there are 4\.00 GB of memory\n/,
    );
    expect(none.stdout).not.toMatch(/→/);
    const slow = await tandem(['plan', 'deepseek-v3', '--machine', at('laptop.json')]);
    expect(slow.code).toBe(1);
    const [verdict, memory, other] = slow.stdout.split('\n');
    expect(verdict).toMatch(
      /^deepseek-v3: not on this machine: experts would be read from the disk for each token \(141 GB of weights, 15\.\d GB of memory\); about 0\.\d+ tok\/s at best \(iq1_s\)$/,
    );
    expect(memory).toMatch(
      /^what would do: free memory of 142 GB for iq1_s \(then about 1\.\d tok\/s\) or 35\d GB for iq4_xs \(then about 1\.\d tok\/s\)$/,
    );
    expect(other).toMatch(/^ +a smaller model: gpt-oss-20b in mxfp4 \(here about \d+ tok\/s\)$/);
    expect(slow.stdout).not.toMatch(/→/);
    expect(slow.stdout).toMatch(/\niq1_s: 130 GB of experts exceed what is left of memory/);
    const { code, advice, instead } = await planned('laptop.json', 'deepseek-v3');
    expect([code, advice, instead]).toEqual([1, { runs: 'iq1_s', why: expect.any(String) }, [expect.any(String), expect.any(String)]]); // biome-ignore format: one line
  });

  test('limits that stand in the way, and what is slow but runs', async () => {
    const tight = ['plan', 'qwen3-30b-a3b', '--machine', at('laptop.json'), '--ram', '4GB'];
    expect((await tandem(tight)).stdout).toMatch(
      /^qwen3-30b-a3b: .*\nwhat would do: without --ram: q3_k, about \d+ tok\/s\n/,
    );
    writeFileSync(at('fast-disk.json'), JSON.stringify({ ...LAPTOP, disk: { bandwidth: 7 * GB } }));
    const { code, stdout } = await tandem(['plan', 'gpt-oss-120b', '--machine', at('fast-disk.json')]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^gpt-oss-120b: slow on this machine: experts would be read from the disk for each token \(63\.4 GB of weights, 15\.\d GB of memory\); about [2-4](\.\d)? tok\/s\nwhat would do: free memory of 64\.\d GB \(then about/,
    );
    expect(stdout).toMatch(/^→ {2}mxfp4 /m);
  });
});

describe('--rules and --defer-experts', () => {
  test('what rules place is planned, by the word of the rules', async () => {
    const args = ['deepseek-v3', '-c', '8192', '--rules'];
    const [card, cpu] = [
      await planned('server.json', ...args, 'one-gpu'),
      await planned('server.json', ...args, 'cpu'),
    ];
    const [beside, alone] = [card, cpu].map(({ quants }) => byQuant(quants, 'q4_k_m').plan);
    expect(beside.fit).toMatchObject({ kind: 'hybrid', gpuLayers: 0 });
    expect(alone.fit).toMatchObject({ kind: 'cpu', vram: 0 });
    expect(beside.decode!.seconds).toBeLessThan(alone.decode!.seconds);
    const late = await tandem(['plan', ...args, 'one-gpu', '--defer-experts', '2', '--machine', at('server.json')]);
    expect(late.stderr).toMatch(/^\[models\] 2 of the 8 experts of a token come one layer late: .* lossy\n$/);
    expect(late.stdout).toMatch(
      /\nq5_k: by the rules the memory holds 4\d\d GB, cuda:0 holds \d+\.\d GB; a token takes /,
    );
  });

  test('rules that put too much on a card: how much, and what goes without them', async () => {
    const { code, stdout } = await tandem([
      'plan',
      'deepseek-v3',
      '--machine',
      at('server.json'),
      '--rules',
      'gpu-only',
    ]);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /^deepseek-v3: not on this machine: the rules put \d+ GB on cuda:0 \(weights \d+ GB, .*\), 22\.8 GB of it can be filled\nwhat would do: without --rules: q5_k, about \d+ tok\/s\n/,
    );
  });

  test('rules that cannot be, or decide nothing', async () => {
    const none = await tandem(['plan', 'deepseek-v2-lite', '--machine', at('laptop.json'), '--rules', 'one-gpu']);
    expect([none.code, none.stdout]).toEqual([1, '']);
    expect(none.stderr).toMatch(/^\[placement\] a step is placed on a device of this machine: cpu; one-gpu\.yaml:\d+ /);
    writeFileSync(at('odd.yaml'), '- match: { name: nothing }\n  place: { tiles: off }\n');
    const odd = await tandem(['plan', 'deepseek-v2-lite', '--machine', at('laptop.json'), '--rules', at('odd.yaml')]);
    expect(odd.code).toBe(0);
    expect(odd.stderr).toMatch(/^\[placement\] odd\.yaml:1: this rule matches no step of .*\n$/);
    const many = await tandem(['plan', 'deepseek-v2-lite', '--machine', at('laptop.json'), '--defer-experts', '6']);
    expect(many.stderr).toMatch(/--defer-experts is a whole number from 0 to 5.*; 6/);
  });
});

describe('a file', () => {
  test('the model that ships', async () => {
    const result = await planned('laptop.json');
    expect(result).toMatchObject({ source: 'file', advice: { quant: 'q8_0' } });
    expect(result.quants).toHaveLength(1);
    expect(result.quants[0].plan.fit).toMatchObject({ kind: 'cpu', fits: 'memory' });
    const { stdout } = await tandem(['plan', defaultModelPath(), '--machine', at('laptop.json')]);
    expect(stdout).toMatch(/jug-Q8_0\.gguf: fits, about \d+ tok\/s\n/);
  });

  test.skipIf(nativeProblem())('on this machine: measured once, then remembered', async () => {
    const env = { XDG_CACHE_HOME: at('cache') };
    const first = await tandem(['plan', '--json'], { env });
    expect(first.stderr).toMatch(
      /^measuring this machine, once: some ten seconds\n(?:other programs are busy here now: .*\n)?$/,
    );
    const { machine, quants }: Printed = JSON.parse(first.stdout);
    expect(machine).toMatchObject({ memory: { measured: true }, disk: { bandwidth: expect.any(Number) } });
    expect(machine.kernels!.matrices.map(({ op, format }) => `${op} ${format}`)).toEqual(
      expect.arrayContaining(['linear q8_0', 'experts q8_0', 'experts q4_k', 'linear f32']),
    );
    for (const { costs } of machine.kernels!.matrices)
      for (const [rows, seconds] of costs) expect(rows * seconds).toBeGreaterThan(0);
    expect(quants[0].plan.decode!.tokensPerSecond.expected).toBeGreaterThan(1);
    // Whatever else ran meanwhile: what was measured beside other work is measured again.
    const kept = join(at('cache'), 'tandem', 'machine.json');
    writeFileSync(kept, JSON.stringify({ ...JSON.parse(readFileSync(kept, 'utf8')), busy: false }));
    const again = await tandem(['plan', '--json'], { env });
    expect(again.stderr).toBe('');
    expect(JSON.parse(again.stdout).machine.kernels).toEqual(machine.kernels);
    // As a file it serves another machine.
    writeFileSync(at('here.json'), JSON.stringify({ profile: machine }));
    expect((await planned('here.json')).machine).toEqual(machine);
  });
});

describe('a repository, before any download', () => {
  const jug = readFileSync(defaultModelPath());
  const asked = (...args: string[]) =>
    tandem(['plan', ...args, '--machine', at('laptop.json')], {
      env: { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: at('hub') },
    });

  test('each quantization from its headers, those that cannot be read with a reason', async () => {
    const broken = jug.subarray(0, 1000);
    hub.add('org/jug-GGUF', { 'jug-Q8_0.gguf': jug, 'jug-Q4_0.gguf': broken, 'README.md': 'x' });
    hub.reset();
    const { code, stdout, stderr } = await asked('org/jug-GGUF');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^org\/jug-GGUF: take Q8_0: .*\ntandem pull org\/jug-GGUF:Q8_0\n/);
    expect(stdout).toMatch(/^→ {2}Q8_0 +17\.\d MB /m);
    expect(stdout).toMatch(/^Q4_0: \[formats\] /m);
    expect(hub.sent).toBeLessThan(jug.length / 4);
  });

  test('one of them, by its name; what is not there lists what is', async () => {
    hub.add('org/jug-GGUF', { 'jug-Q8_0.gguf': jug, 'jug-F16.gguf': jug });
    const { stdout } = await asked('org/jug-GGUF:q8_0', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ source: 'hub', quants: [{ quant: 'Q8_0', fileBytes: jug.length }] });
    const missing = await asked('org/jug-GGUF:Q2_K');
    expect(missing.code).toBe(1);
    expect(missing.stderr).toMatch(/Q2_K.*; .*org\/jug-GGUF .*Q8_0/);
  });

  test('nothing of it can be read; offline', async () => {
    hub.add('org/bad', { 'bad-Q8_0.gguf': jug.subarray(0, 900), 'bad-Q4_0.gguf': jug.subarray(0, 800) });
    expect((await asked('org/bad')).stderr).toMatch(
      /^\[cli\] of one quantization at least the headers can be read; org\/bad: \[formats\]/,
    );
    expect((await asked('org/jug-GGUF', '--offline')).stderr).toMatch(/^\[hub\] .*org\/jug-GGUF/);
  });
});

describe('misuse', () => {
  test.each<[string, readonly string[], RegExp]>([
    ['no such file', ['./nothing.gguf'], /nothing\.gguf/],
    ['no such description', [at('none.json')], /none\.json/],
    ['a name that is none', ['what is this'], /organization\/model/],
    ['a machine that is not described', ['deepseek-v3', '--machine', at('qwen.json')], /^\[placement\] .*qwen\.json/],
    ['no machine', ['deepseek-v3', '--machine', at('none.json')], /none\.json/],
    [
      'a machine in no JSON',
      ['deepseek-v3', '--machine', defaultModelPath()],
      /^\[cli\] the file of --machine is JSON; /,
    ],
    ['a budget that is none', ['deepseek-v3', '--ram', 'much'], /--ram.*size like 8GB/],
    [
      'a context that no quantization has',
      ['qwen3-0.6b', '--machine', at('laptop.json'), '-c', '1000000'],
      /40960.*1000000/,
    ],
  ])('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await tandem(['plan', ...args]);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(message);
  });

  test('a description that is none', async () => {
    writeFileSync(at('list.json'), '[]');
    writeFileSync(at('text.json'), 'x');
    writeFileSync(at('odd.json'), '{"model_type":"odd"}');
    const refusal = async (name: string) => (await tandem(['plan', at(name), '--machine', at('laptop.json')])).stderr;
    expect(await refusal('list.json')).toMatch(/config\.json of a Hugging Face repository/);
    expect(await refusal('text.json')).toMatch(/config\.json of a Hugging Face repository; .*text\.json: /);
    expect(await refusal('odd.json')).toMatch(/^\[\w+\] .*odd/);
  });
});
