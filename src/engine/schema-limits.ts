/** What a JSON Schema demands and the grammar library does not follow: output could break it and look well. */

export interface Unfollowed {
  /** `properties.price.multipleOf`. */
  readonly path: string;
}

/** Keywords that are never followed. */
const NEVER = new Set([
  'multipleOf',
  'uniqueItems',
  'contains',
  'not',
  'if',
  'propertyNames',
  'dependentRequired',
  'dependentSchemas',
  'unevaluatedProperties',
  'unevaluatedItems',
]);
const BOUNDS = new Set(['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum']);
/** Fields that hold schemas by names, or in a row; all others hold one schema, or none. */
const MAPS = new Set(['properties', '$defs', 'definitions', 'patternProperties']);
const LISTS = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems']);
const SINGLE = new Set(['items', 'additionalProperties', 'additionalItems']);

type Schema = Readonly<Record<string, unknown>>;

/** The first demand that is not followed, or undefined: every output keeps the whole schema. */
export function unfollowed(schema: unknown, path = ''): Unfollowed | undefined {
  if (!isSchema(schema)) return undefined;
  for (const [name, value] of Object.entries(schema)) {
    const at = path === '' ? name : `${path}.${name}`;
    if (breaks(schema, name, value)) return { path: at };
    const inside = within(name, value).map(([key, item]) => unfollowed(item, key === '' ? at : `${at}.${key}`));
    const found = inside.find((problem) => problem !== undefined);
    if (found) return found;
  }
  return undefined;
}

function breaks(schema: Schema, name: string, value: unknown): boolean {
  if (NEVER.has(name)) return value !== false;
  if (BOUNDS.has(name)) return allows(schema, 'number');
  if (name === 'allOf') return Array.isArray(value) && (value.length > 1 || hasOthers(schema, name));
  if (name === '$ref') return typeof value === 'string' && !value.startsWith('#');
  if (name === 'required') return Array.isArray(value) && value.some((field) => !isNamed(schema, String(field)));
  if (name === 'enum' || name === 'const')
    return (name === 'enum' && Array.isArray(value) ? value : [value]).some((item) => !fits(schema, item));
  return false;
}

/** Whether values of this type may come: `number` where `integer` alone does not. */
function allows({ type }: Schema, name: string): boolean {
  return type === undefined || type === name || (Array.isArray(type) && type.includes(name));
}

/** Demands beside it that would be lost. */
function hasOthers(schema: Schema, name: string): boolean {
  const annotations = new Set([
    name,
    'title',
    'description',
    'default',
    'examples',
    '$schema',
    '$id',
    '$defs',
    'definitions',
  ]);
  return Object.keys(schema).some((key) => !annotations.has(key));
}

function isNamed({ properties }: Schema, field: string): boolean {
  return isSchema(properties) && Object.hasOwn(properties, field);
}

function fits(schema: Schema, value: unknown): boolean {
  if (value === null) return allows(schema, 'null');
  if (Array.isArray(value)) return allows(schema, 'array');
  if (typeof value === 'number')
    return allows(schema, 'number') || (Number.isInteger(value) && allows(schema, 'integer'));
  return allows(schema, typeof value);
}

/** Schemas that a field holds, by their names in the path. */
function within(name: string, value: unknown): (readonly [string, unknown])[] {
  if (MAPS.has(name) && isSchema(value)) return Object.entries(value);
  if (LISTS.has(name) && Array.isArray(value)) return value.map((item, i) => [String(i), item] as const);
  return SINGLE.has(name) ? [['', value] as const] : [];
}

function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
