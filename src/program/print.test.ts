import { describe, expect, it } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { printProgram, printStep } from './print.ts';

const { program } = tinyProgram({
  seed: 1,
  format: 'q8_0',
  fast: true,
  kvType: 'bf16',
  layers: [
    ['mla', 'dense'],
    ['mla', 'experts'],
    ['gqa', 'dense'],
  ],
});
const lines = printProgram(program).split('\n');
const line = (name: string) => printStep(program, program.steps.find((step) => step.name === name)!);

describe('printing', () => {
  it('begins with the dimensions and the cache, equal layers on one line', () => {
    expect(lines.slice(0, 5)).toEqual([
      `program tiny: vocabulary 40, context 4096, ${program.steps.length} steps, ${program.values.length} values, ` +
        `${program.weights.length} weights, logits %${program.logits}`,
      'kv bf16, pages of 64 tokens, 112 elements a token',
      '  layers 0-1: 1x40',
      '  layer 2: 1x16 1x16',
      '',
    ]);
    expect(lines.length).toBe(5 + program.steps.length + 1);
  });

  it('a line a step: views, weights, attributes, placement, and the name where no weight says it', () => {
    expect(line('embed')).toBe('%0 [T,64] = embed embed.weight[q8_0 40x64] @cpu:f32');
    expect(line('layers.0.q')).toBe('%2 [T,80] = linear %1 layers.0.q.weight[q8_0 80x64] @cpu:q8_32');
    expect(line('layers.0.kv_a_norm')).toBe(
      '%6 [T,32] = rms-norm %4[0:32] 0.kv_a_norm.weight[f32 32] epsilon=0.000001 group=32 @cpu:f32 ; layers.0.kv_a_norm',
    );
    expect(line('layers.0.append')).toBe('mla-append %6 %5 cache=0 @cpu:f32 ; layers.0.append');
    expect(line('layers.0.mla')).toMatch(/^%7 \[T,64\] = mla %3 layers\.0\.kv_b\[q8_0 128x32\] - - cache=0 heads=2 /);
    expect(line('layers.1.router')).toMatch(
      /^%\d+ i32\[T,2\], %\d+ \[T,2\] = router %\d+ layers\.1\.bias\[f32 4\] topk=2 /,
    );
  });

  it('long lists by length, ends and a checksum that sees every number', () => {
    const step = program.steps.find(({ name }) => name === 'layers.2.q_rope')!;
    const frequencies = step.attributes.frequencies as number[];
    const print = (list: number[]) =>
      /frequencies=(\S+)/.exec(printStep(program, { ...step, attributes: { frequencies: list } }))![1];
    expect(print(frequencies)).toMatch(/^\[8:1\.\.0\.01778279#[0-9a-f]{8}\]$/);
    const changed = frequencies.map((f, i) => (i === 4 ? f * 1.00001 : f));
    expect(print(changed)).not.toBe(print(frequencies));
    expect(print(frequencies.map((f, i) => (i === 4 ? f * (1 + 1e-15) : f)))).toBe(print(frequencies));
    expect(print([1, 0.5])).toBe('[1,0.5]');
  });

  it('says the middle of experts and the rows from which tiles serve', () => {
    const step = program.steps.find(({ op }) => op === 'experts')!;
    const placement = { device: 'cpu', activation: 'q8_256', middle: 'q8_32', tiles: 16 } as const;
    expect(printStep(program, { ...step, placement })).toContain('@cpu:q8_256/q8_32 tiles=16');
  });
});
