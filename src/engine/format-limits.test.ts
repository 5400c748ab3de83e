import { describe, expect, test } from 'vitest';
import { sizeProblem } from './format-limits.ts';
import type { OutputFormat } from './grammar.ts';

const object = (count: number) => ({
  type: 'object',
  properties: Object.fromEntries(Array.from({ length: count }, (_, i) => [`p${i}`, {}])),
});
const schema = (value: Record<string, unknown>): OutputFormat => ({ type: 'schema', schema: value });

describe('sizes of forms', () => {
  test.each<[string, OutputFormat]>([
    ['properties', schema(object(65))],
    ['properties of many objects', schema({ type: 'array', prefixItems: [object(60), object(60), object(60)] })],
    ['nested properties', schema({ type: 'array', items: { anyOf: [object(200)] } })],
    ['values', schema({ enum: Array.from({ length: 3000 }, (_, i) => i) })],
    ['a length', schema({ type: 'string', maxLength: 1e6 })],
    ['a pattern in a schema', schema({ type: 'string', pattern: '^(a{0,300}){0,300}$' })],
    ['characters', schema({ type: 'object', description: 'x'.repeat(70_000) })],
    ['parts', schema({ anyOf: Array.from({ length: 3000 }, () => ({})) })],
    ['repeats', { type: 'regex', pattern: '(a{100}){101}' }],
    ['a grammar', { type: 'ebnf', grammar: `root ::= "${'a'.repeat(20_000)}"` }],
  ])('%s: too many', (_, format) => {
    expect(sizeProblem(format)).toMatch(/more than \d+/);
  });

  test.each<[string, OutputFormat]>([
    ['an object', schema({ ...object(100), required: Object.keys(object(90).properties) })],
    ['any JSON', { type: 'json' }],
    ['a date', { type: 'regex', pattern: '[0-9]{4}-[0-9]{2}-[0-9]{2}' }],
    ['a boolean schema', { type: 'schema', schema: true }],
    ['a property named enum', schema({ type: 'object', properties: { enum: { enum: ['a'] } } })],
  ])('%s is fine', (_, format) => {
    expect(sizeProblem(format)).toBeUndefined();
  });
});
