/**
 * How large a form of output may be. Compiling one happens between two passes, on the thread that serves everybody: what would
 * take seconds is refused before it begins.
 */
import type { OutputFormat } from './grammar.ts';

/** Characters of a schema, a pattern, a grammar. */
const MOST_SCHEMA = 64 << 10;
const MOST_TEXT = 16 << 10;
/** Properties of one object that may be left out: each may follow each, and compiling takes the third power of their number. */
const MOST_OPTIONAL = 64;
/** Values of one enumeration. */
const MOST_VALUES = 2048;
/** Parts of a schema, nested ones included. */
const MOST_PARTS = 2048;
/** Times a part may be repeated by number, repetitions within repetitions multiplied. */
const MOST_REPEATS = 10_000;

/** What is too large about a form; undefined where nothing is. */
export function sizeProblem(format: OutputFormat): string | undefined {
  switch (format.type) {
    case 'json':
      return undefined;
    case 'schema':
      return schemaProblem(format.schema);
    case 'regex':
      return textProblem('the pattern', format.pattern);
    case 'ebnf':
      return textProblem('the grammar', format.grammar);
  }
}

function textProblem(what: string, text: string): string | undefined {
  if (text.length > MOST_TEXT) return `${what} has ${text.length} characters, more than ${MOST_TEXT}`;
  const repeats = repetitions(text);
  return repeats > MOST_REPEATS ? `${what} repeats parts ${repeats} times, more than ${MOST_REPEATS}` : undefined;
}

/** Counted repetitions `{m,n}` multiplied, as if each were within the last: an upper bound. */
function repetitions(text: string): number {
  let product = 1;
  for (const [, low, high] of text.matchAll(/\{(\d+)(?:,(\d*))?\}/g)) product *= Math.max(1, Number(high || low));
  return product;
}

function schemaProblem(schema: unknown): string | undefined {
  const { length } = JSON.stringify(schema);
  if (length > MOST_SCHEMA) return `the schema has ${length} characters, more than ${MOST_SCHEMA}`;
  const left: unknown[] = [schema];
  let work = 0;
  for (let parts = 0; left.length > 0; parts++) {
    if (parts > MOST_PARTS) return `the schema has more than ${MOST_PARTS} parts`;
    const part = left.pop();
    if (typeof part !== 'object' || part === null) continue;
    const {
      properties,
      required,
      enum: values,
      pattern,
      maxLength,
      minLength,
      maxItems,
      minItems,
    } = part as Record<string, unknown>;
    if (typeof properties === 'object' && properties !== null) {
      const needed = new Set(Array.isArray(required) ? required : []);
      const optional = Object.keys(properties).filter((name) => !needed.has(name)).length;
      if (optional > MOST_OPTIONAL)
        return `an object of the schema has ${optional} optional properties, more than ${MOST_OPTIONAL}`;
      work += optional ** 3;
      if (work > 2 * MOST_OPTIONAL ** 3)
        return `the objects of the schema have more than ${MOST_OPTIONAL} optional properties in all`;
    }
    if (Array.isArray(values) && values.length > MOST_VALUES)
      return `an enumeration has ${values.length} values, more than ${MOST_VALUES}`;
    for (const count of [maxLength, minLength, maxItems, minItems])
      if (typeof count === 'number' && count > MOST_REPEATS)
        return `a length of the schema is ${count}, more than ${MOST_REPEATS}`;
    const problem = typeof pattern === 'string' ? textProblem('a pattern of the schema', pattern) : undefined;
    if (problem !== undefined) return problem;
    for (const [key, value] of Object.entries(part)) if (key !== 'enum') left.push(value);
  }
  return undefined;
}
