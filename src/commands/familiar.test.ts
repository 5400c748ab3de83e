import { Command } from 'commander';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import { type Device, lower } from '../placement/lower.ts';
import type { Program } from '../program/program.ts';
import { familiarWords, parseOverride, rulesOf, withFamiliar } from './familiar.ts';

describe('words of llama.cpp', () => {
  const words = (line: string) =>
    familiarWords(['node', 'tandem', ...line.split(' ')])
      .slice(2)
      .join(' ');

  test.each([
    ['run -ngl 99 -ot exps=CPU -ncmoe 4 x', 'run --n-gpu-layers 99 --override-tensor exps=CPU --n-cpu-moe 4 x'],
    [
      'chat --temp 0.7 --repeat-penalty 1.1 -c 4096 -n 20',
      'chat --temperature 0.7 --repetition-penalty 1.1 -c 4096 -n 20',
    ],
    ['serve -hf org/m:Q4_K_M --ctx-size=8192 -np 4', 'serve --model org/m:Q4_K_M --context=8192 --parallel 4'],
    ['run -fa on -fa --no-mmap -cnv x', 'run --flash-attn --flash-attn --load pages x'],
    ['run -c 0 -n -1 --ctx-size 0 --n-predict=-1 x', 'run x'],
    ['run -b 512 -ub 128 x=y', 'run -b 512 --ubatch-size 128 x=y'],
    ['run -fa x -- -ngl -fa', 'run --flash-attn x -- -ngl -fa'],
    ['run --jinja -no-cnv -st --mlock -tb 8 --numa=distribute -ctv q8_0 --no-warmup x', 'run x'],
    ['serve m.gguf -n 512 -a it --reasoning-format deepseek', 'serve m.gguf --max-new-tokens 512 --alias it --reasoning-format separate'], // biome-ignore format: a table
    ['serve m.gguf --n-predict -1 --reasoning-format none -tb 4 -cb', 'serve m.gguf --reasoning-format none'],
    ['bench model -fa', 'bench model -fa'],
    ['help run -fa', 'help run -fa'],
  ])('%s', (line, expected) => {
    expect(words(line)).toBe(expected);
  });

  test('values come out as the options say', () => {
    const command = withFamiliar(new Command('run')).argument('[words...]').exitOverride();
    const line = [
      '--override-tensor',
      'a=CPU,b=CUDA0',
      '--override-tensor',
      'c=CPU',
      '-b',
      '64',
      '--cpu-moe',
      '--experts-per-token',
      '4',
      'x',
    ];
    command.parse(line, { from: 'user' });
    expect(command.opts()).toEqual({
      overrideTensor: ['a=CPU', 'b=CUDA0', 'c=CPU'],
      batchSize: 64,
      cpuMoe: true,
      expertsPerToken: 4,
    });
  });

  test('overrides name a device that can be', () => {
    expect(parseOverride('blk\\.(1|2)=x=CUDA1')).toMatchObject({ pattern: /blk\.(1|2)=x/, device: 'cuda:1' });
    for (const text of ['exps', 'exps=', 'exps=Vulkan0'])
      expect(() => parseOverride(text)).toThrow(`-ot takes REGEX=CPU or REGEX=CUDA0; ${text}`);
    expect(() => parseOverride('(=CPU')).toThrow(/-ot takes a regular expression before the =; \(=CPU/);
  });
});

describe('placement flags as rules', () => {
  let program: Program;
  beforeAll(async () => {
    const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['qwen3-30b-a3b'], { name: 'qwen3', mix: 'q4_k_m' });
    ({ program } = await buildProgram(checkpoint));
  });

  const devices: Device[] = [{ name: 'cpu' }, { name: 'cuda:0' }, { name: 'cuda:1' }];
  /** Where a step runs on a machine with so many GPUs. */
  const placed = (flags: Parameters<typeof rulesOf>[1], gpus = 1) => {
    const names = devices.slice(1, 1 + gpus).map(({ name }) => name);
    const rules = rulesOf(program, flags, names);
    const { steps } = lower(program, { device: 'cpu', devices: devices.slice(0, 1 + gpus) }, { rules });
    return (name: string) => steps.find((step) => step.name === name)?.placement?.device;
  };

  test('-ngl: the last layers, with one more the head', () => {
    const some = placed({ layers: 8 });
    expect(some('model.layers.39.self_attn.q_proj')).toBe('cpu');
    expect(some('model.layers.40.self_attn.q_proj')).toBe('cuda:0');
    expect(some('model.layers.47.mlp.experts')).toBe('cuda:0');
    expect(some('lm_head')).toBe('cpu');
    const all = placed({ layers: 49 });
    expect([all('model.layers.0.mlp.experts'), all('lm_head'), all('model.embed_tokens')]).toEqual([
      'cuda:0',
      'cuda:0',
      'cpu',
    ]);
    const none = placed({ layers: 0 });
    expect([none('model.layers.47.mlp.experts'), none('lm_head')]).toEqual(['cpu', 'cpu']);
  });

  test('two GPUs share the layers', () => {
    const both = placed({ layers: 99 }, 2);
    expect([both('model.layers.0.mlp.gate'), both('model.layers.47.mlp.gate'), both('lm_head')]).toEqual([
      'cuda:0',
      'cuda:1',
      'cuda:1',
    ]);
  });

  test('--n-cpu-moe and --cpu-moe keep experts, and only those', () => {
    const first = placed({ layers: 99, nCpuMoe: 10 });
    expect(first('model.layers.9.mlp.experts')).toBe('cpu');
    expect(first('model.layers.10.mlp.experts')).toBe('cuda:0');
    expect(first('model.layers.9.mlp.gate')).toBe('cuda:0');
    expect(placed({ layers: 99, cpuMoe: true })('model.layers.47.mlp.experts')).toBe('cpu');
  });

  test('-ot is matched with the names of tensors, and goes before', () => {
    const overrides = [
      parseOverride('blk\\.[0-3]\\.ffn_(up|down|gate)_exps=CPU'),
      parseOverride('blk\\.4\\.attn_q=CPU'),
    ];
    const device = placed({ layers: 99, overrides });
    expect(device('model.layers.3.mlp.experts')).toBe('cpu');
    expect(device('model.layers.4.mlp.experts')).toBe('cuda:0');
    expect(device('model.layers.4.self_attn.q_proj')).toBe('cpu');
    expect(device('model.layers.4.self_attn.k_proj')).toBe('cuda:0');
  });
});
