import { expect, it } from 'vitest';
import { tinyProgram } from '../../../test/conformance/tiny-program.ts';
import { PARTS, partOf, partTimes } from './speed.ts';

const { program } = tinyProgram({ seed: 1 });

it('counts each step once', () => {
  const micros = program.steps.map((_, i) => 1000 * (i + 1));
  const parts = partTimes(program, micros, 2);
  const sum = PARTS.reduce((total, part) => total + parts[part].milliseconds, 0);
  expect(sum).toBeCloseTo((program.steps.length * (program.steps.length + 1)) / 4);
  expect(parts.experts.bytes).toBeGreaterThan(0);
});

it('knows the head, attention and sampling by what they are', () => {
  const part = (op: string) => partOf(program, program.steps.find((step) => step.op === op)!);
  expect([part('attention'), part('mla'), part('experts'), part('sample')]).toEqual([
    'attention',
    'attention',
    'experts',
    'sampling',
  ]);
  expect(partOf(program, program.steps.find(({ outputs }) => outputs.includes(program.logits))!)).toBe('head');
});
