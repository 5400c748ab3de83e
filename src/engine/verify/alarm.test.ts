import { expect, test } from 'vitest';
import { tinyProgram } from '../../../test/conformance/tiny-program.ts';
import { lower } from '../../placement/lower.ts';
import { tileRule } from '../../placement/tiles.ts';
import type { KvType, Program } from '../../program/program.ts';
import { alarmOf } from './alarm.ts';

const tiny = (format: 'bf16' | 'q8_0') => tinyProgram({ seed: 4, format, layers: [['mla', 'experts']] }).program;
const exact = (program: Program) => lower(program, { device: 'cpu' });
const fast = (program: Program) => lower(program, { device: 'cpu', tiles: tileRule('avx512-bf16') });
const withCache = (program: Program, type: KvType): Program => ({ ...program, kv: { ...program.kv, type } });

test('what rounds nothing is held tightly, a cache in bf16 a little less, tiles and int8 widely', () => {
  const [plain, rounded] = [tiny('bf16'), tiny('q8_0')];
  expect(alarmOf(withCache(exact(plain), 'f32'), 70)).toBe(1e-10);
  expect(alarmOf(withCache(exact(plain), 'bf16'), 70)).toBe(1e-7);
  expect(alarmOf(withCache(exact(plain), 'e4m3'), 70)).toBe(32e-7);
  expect(alarmOf(withCache(fast(plain), 'bf16'), 70)).toBe(1e-5);
  expect(alarmOf(withCache(exact(rounded), 'f32'), 70)).toBe(5e-4);
  expect(alarmOf(withCache(fast(rounded), 'bf16'), 70)).toBe(5e-4);
});

test('tiles that no pass has rows for are none', () => {
  const attention = withCache(lower(tiny('bf16'), { device: 'cpu', tiles: (op) => (op === 'mla' ? 16 : undefined) }), 'bf16'); // biome-ignore format: one line
  expect(alarmOf(attention, 15)).toBe(1e-7);
  expect(alarmOf(attention, 16)).toBe(1e-5);
});
