/**
 * Letter classes of regular expressions and grammars as the grammar library can follow them. It reads one byte for `.` and for
 * `[α-ω]`, and lets a `pattern` inside a JSON string break that string. So each class is written again:
 *
 *     [α-ω]  ─▶  ([\xce\xce][\xb1-\xbf]|[\xcf\xcf][\x80-\x89])     bytes of UTF-8; a byte twice, since once it is a letter
 *     .      ─▶  [^\n\r]                                           complements of ASCII it reads as letters
 *
 * and of a class inside a JSON string only those letters stay that need no escape there.
 */

/** Code points [first, last], in order, apart from each other. */
type Letters = readonly (readonly [number, number])[];

const LAST = 0x10ffff;
const ESCAPES: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, b: 8, a: 7, e: 27, '0': 0 };
const NAMED: Readonly<Record<string, Letters>> = {
  d: [[0x30, 0x39]],
  w: joined([
    [0x30, 0x39],
    [0x41, 0x5a],
    [0x5f, 0x5f],
    [0x61, 0x7a],
  ]),
  s: joined([
    [9, 13],
    [0x20, 0x20],
  ]),
};
const LINE_ENDS: Letters = [
  [10, 10],
  [13, 13],
];
/** Control characters, the quote, the backslash. */
const ESCAPED_IN_JSON: Letters = [
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
];
/** Where UTF-8 takes a byte more, and the gap of surrogates. */
const CUTS = [0, 0x80, 0x800, 0xd800, 0xe000, 0x10000, LAST + 1];

/** `inString`: what it matches stands between the quotes of a JSON string. */
export function regexClasses(pattern: string, inString = false): string {
  return pattern.replace(/\\(?:x[\da-f]{2}|u[\da-f]{4}|u\{[\da-f]+\}|.)|\[\^?(?:\\.|[^\]\\])*\]|["./]/giu, (part) => {
    if (part.startsWith('[')) return shown(within(classOf(part), inString));
    if (part === '.') return shown(within(without([[0, LAST]], LINE_ENDS), inString));
    const named = namedClass(part[1] ?? '');
    if (part.startsWith('\\') && named !== undefined) return shown(within(named, inString));
    if (!inString || /^\\[bB1-9kpPc]/.test(part) || part === '/') return part;
    const letter = part.startsWith('\\') ? letterOf(part) : part.codePointAt(0)!;
    return within([[letter, letter]], true).length > 0 ? part : jsonEscape(letter);
  });
}

/** The schemas inside a structure of tool calls, as `schemaClasses` has them. */
export function structureClasses<T>(structure: T): T {
  if (Array.isArray(structure)) return structure.map(structureClasses) as T;
  if (typeof structure !== 'object' || structure === null) return structure;
  const { type } = structure as { type?: unknown };
  const fields = Object.entries(structure).map(([name, value]): [string, unknown] => [
    name,
    type === 'json_schema' && name === 'json_schema' ? schemaClasses(value) : structureClasses(value),
  ]);
  return Object.fromEntries(fields) as T;
}

/** The same for a grammar in EBNF, where classes beyond ASCII alone are misread. */
export function ebnfClasses(grammar: string): string {
  return grammar.replace(/"(?:\\.|[^"\\\n])*"|#[^\n]*|\[\^?(?:\\.|[^\]\\])*\]/gsu, (part) => {
    if (!part.startsWith('[')) return part;
    const beyond = [...part].some((letter) => letter.codePointAt(0)! > 0x7f) || /\\[xuU]/.test(part);
    return beyond ? shown(classOf(part)) : part;
  });
}

/** Fields of a schema that hold values, not schemas. */
const VALUES = new Set(['const', 'enum', 'default', 'examples']);
/** Fields that hold schemas by names of the user. */
const MAPS = new Set(['properties', '$defs', 'definitions', 'patternProperties', 'dependentSchemas']);

/** A schema with its patterns written again, and without bounds of fractions, which the library draws wrongly (`0,5`). */
export function schemaClasses<T>(schema: T, isMap = false): T {
  if (Array.isArray(schema)) return schema.map((item) => schemaClasses(item)) as T;
  if (typeof schema !== 'object' || schema === null) return schema;
  const { type } = schema as { type?: unknown };
  const fractions = !isMap && (type === 'number' || (Array.isArray(type) && type.includes('number')));
  const fields = Object.entries(schema).flatMap(([name, value]): [string, unknown][] => {
    if (isMap) return [[name, schemaClasses(value)]];
    if (fractions && /^(exclusive)?(minimum|maximum)$/i.test(name)) return [];
    if (VALUES.has(name)) return [[name, value]];
    if (name === 'pattern' && typeof value === 'string') return [[name, regexClasses(value, true)]];
    if (name === 'patternProperties' && typeof value === 'object' && value !== null)
      return [
        [
          name,
          Object.fromEntries(
            Object.entries(value).map(([key, item]) => [regexClasses(key, true), schemaClasses(item)]),
          ),
        ],
      ];
    return [[name, schemaClasses(value, MAPS.has(name))]];
  });
  return Object.fromEntries(fields) as T;
}

function classOf(text: string): Letters {
  const negated = text.startsWith('[^');
  const items =
    text.slice(negated ? 2 : 1, -1).match(/\\(?:x[\da-f]{2}|u[\da-f]{4}|U[\da-f]{8}|u\{[\da-f]+\}|.)|./gisu) ?? [];
  const ranges: [number, number][] = [];
  for (let i = 0; i < items.length; i++) {
    const named = items[i].startsWith('\\') ? namedClass(items[i][1]) : undefined;
    if (named !== undefined) ranges.push(...named.map(([a, b]): [number, number] => [a, b]));
    else if (items[i + 1] === '-' && i + 2 < items.length) {
      ranges.push([letterOf(items[i]), letterOf(items[i + 2])]);
      i += 2;
    } else ranges.push([letterOf(items[i]), letterOf(items[i])]);
  }
  const letters = joined(ranges);
  return negated ? without([[0, LAST]], letters) : letters;
}

function namedClass(name: string): Letters | undefined {
  const letters = NAMED[name.toLowerCase()];
  return letters !== undefined && name !== name.toLowerCase() ? without([[0, LAST]], letters) : letters;
}

function letterOf(item: string): number {
  if (!item.startsWith('\\')) return item.codePointAt(0)!;
  const hex = /^\\[xuU]\{?([\da-f]+)\}?$/i.exec(item)?.[1];
  return hex !== undefined ? Number.parseInt(hex, 16) : (ESCAPES[item[1]] ?? item.codePointAt(1)!);
}

function within(letters: Letters, inString: boolean): Letters {
  return inString ? without(letters, ESCAPED_IN_JSON) : letters;
}

function joined(ranges: readonly (readonly [number, number])[]): Letters {
  const all: [number, number][] = [];
  for (const [a, b] of [...ranges].sort(([a], [b]) => a - b)) {
    const last = all.at(-1);
    if (last !== undefined && a <= last[1] + 1) last[1] = Math.max(last[1], b);
    else all.push([a, b]);
  }
  return all;
}

function without(letters: Letters, others: Letters): Letters {
  return others.reduce<Letters>(
    (left, [a, b]) =>
      left.flatMap(([first, last]): [number, number][] =>
        b < first || a > last
          ? [[first, last]]
          : [
              ...(first < a ? [[first, a - 1] as [number, number]] : []),
              ...(last > b ? [[b + 1, last] as [number, number]] : []),
            ],
      ),
    letters,
  );
}

/** A class that the library reads as these letters. */
function shown(letters: Letters): string {
  const ascii = letters.filter(([a]) => a < 0x80).map(([a, b]) => [a, Math.min(b, 0x7f)] as const);
  const beyond = letters.filter(([, b]) => b >= 0x80).map(([a, b]) => [Math.max(a, 0x80), b] as const);
  if (beyond.length === 1 && beyond[0][0] === 0x80 && beyond[0][1] === LAST)
    return `[^${bytes(without([[0, 0x7f]], ascii)) || '\\x00'}]`;
  const sequences = beyond.flatMap(utf8);
  const parts = [...(ascii.length > 0 || sequences.length === 0 ? [`[${bytes(ascii)}]`] : []), ...sequences];
  return sequences.length === 0 ? parts[0] : `(${parts.join('|')})`;
}

function bytes(ranges: Letters): string {
  const byte = (value: number) => `\\x${value.toString(16).padStart(2, '0')}`;
  return ranges.map(([a, b]) => (a === b ? byte(a).repeat(2) : `${byte(a)}-${byte(b)}`)).join('');
}

/** The bytes of a range of code points, as sequences of classes. */
function utf8([first, last]: readonly [number, number]): string[] {
  return CUTS.slice(1).flatMap((end, i) => {
    const [a, b] = [Math.max(first, CUTS[i]), Math.min(last, end - 1)];
    if (a > b || CUTS[i] === 0xd800) return [];
    const length = a < 0x800 ? 2 : a < 0x10000 ? 3 : 4;
    return spans(a, b, length - 1).map((span) => span.map((range) => `[${bytes([range])}]`).join(''));
  });
}

/** Sequences of byte ranges for [a, b], which have `more` bytes after the first. */
function spans(a: number, b: number, more: number, first = true): [number, number][][] {
  const lead = first ? [0, 0xc0, 0xe0, 0xf0][more] : 0x80;
  const size = 64 ** more;
  const [low, high] = [Math.floor(a / size), Math.floor(b / size)];
  const byte = (value: number) => lead + value;
  if (more === 0) return [[[byte(a), byte(b)]]];
  if (low === high)
    return spans(a - low * size, b - low * size, more - 1, false).map((rest) => [[byte(low), byte(low)], ...rest]);
  if (a !== low * size)
    return [...spans(a, (low + 1) * size - 1, more, first), ...spans((low + 1) * size, b, more, first)];
  if (b !== (high + 1) * size - 1)
    return [...spans(a, high * size - 1, more, first), ...spans(high * size, b, more, first)];
  const rest = Array.from({ length: more }, (): [number, number] => [0x80, 0xbf]);
  return [[[byte(low), byte(high)], ...rest]];
}

/** A letter that a JSON string holds behind a backslash, as a regular expression. */
function jsonEscape(letter: number): string {
  const short = { 8: 'b', 9: 't', 10: 'n', 12: 'f', 13: 'r', 34: '"', 92: '\\\\' }[letter];
  return `(\\\\${short ?? `u${letter.toString(16).padStart(4, '0')}`})`;
}
