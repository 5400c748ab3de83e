import { expect, it } from 'vitest';
import { unfollowed } from './schema-limits.ts';

it.each([
  true,
  {
    type: 'object',
    properties: { a: { type: 'integer', minimum: 1, maximum: 5 }, b: { enum: ['x', 'y'] } },
    required: ['a'],
  },
  {
    type: 'array',
    items: { $ref: '#/$defs/node' },
    minItems: 1,
    $defs: { node: { type: ['string', 'null'], pattern: 'a+' } },
  },
  {
    anyOf: [
      { type: 'string', maxLength: 4 },
      { type: 'boolean', const: true },
    ],
    description: 'multipleOf',
  },
  { allOf: [{ type: 'string' }], title: 'one' },
  {
    type: 'object',
    properties: { not: { type: 'number' }, multipleOf: { type: 'string' } },
    additionalProperties: false,
  },
  { type: 'array', uniqueItems: false },
])('%j is followed whole', (schema) => {
  expect(unfollowed(schema)).toBeUndefined();
});

it.each([
  [{ type: 'number', minimum: 0 }, 'minimum'],
  [{ exclusiveMaximum: 3 }, 'exclusiveMaximum'],
  [{ type: 'object', properties: { price: { type: 'number', multipleOf: 0.01 } } }, 'properties.price.multipleOf'],
  [{ type: 'array', items: { type: 'string' }, uniqueItems: true }, 'uniqueItems'],
  [{ type: 'array', contains: { type: 'string' } }, 'contains'],
  [{ type: 'array', items: { not: { type: 'string' } } }, 'items.not'],
  [{ if: { type: 'string' } }, 'if'],
  [{ allOf: [{ type: 'string' }, { maxLength: 3 }] }, 'allOf'],
  [{ type: 'string', allOf: [{ maxLength: 3 }] }, 'allOf'],
  [{ $ref: 'https://example.com/schema' }, '$ref'],
  [{ type: 'object', properties: { a: {} }, required: ['a', 'b'] }, 'required'],
  [{ type: 'string', enum: ['a', 3] }, 'enum'],
  [{ anyOf: [{ type: 'string' }, { type: 'object', propertyNames: { maxLength: 3 } }] }, 'anyOf.1.propertyNames'],
  [{ $defs: { a: { dependentRequired: { b: ['c'] } } } }, '$defs.a.dependentRequired'],
])('%j is not', (schema, path) => {
  expect(unfollowed(schema)).toEqual({ path });
});
