/**
 * From plain data, as YAML or a program gives it, to rules. Every problem is told with the path of the offending part,
 * and with what was likely meant; the caller knows where that path stands (rules-file.ts: line and column).
 *
 *     match: { name: self_attn, op: [linear, rope], layers: [0, "3-60", last], format: q4_k }
 *     place: { device: cuda:0, kernel: native, form: file, tiles: off, activation: auto }
 *     prefill: { … }   decode: { … }     as `place`, in passes of that kind
 */
import { z } from 'zod';
import { FORMAT_NAMES, type FormatName } from '../formats/dtype.ts';
import { nearest } from '../nearest.ts';
import { OPS } from '../ops/index.ts';
import { isReplaceable, kernelNames } from '../ops/kernel.ts';
import { ExpressionError, parseTemplate } from './expression.ts';
import type { Rule, RuleMatch, RulePlace } from './rule.ts';

/** Keys and indices from the list of rules down to the part that is wrong. */
export type Path = readonly (string | number)[];

/** `message` is the rule that was broken, `given` what stands there. */
export interface Problem {
  readonly path: Path;
  readonly message: string;
  readonly given: string;
  /** The path names a key that should not be there, not a value. */
  readonly key?: boolean;
}

/** A problem found while looking at one value. */
class Wrong extends Error {
  readonly given: string;
  /** Which element of a list. */
  readonly element?: number;

  constructor(message: string, given: string, element?: number) {
    super(message);
    this.given = given;
    this.element = element;
  }
}

/** A value that `read` turns into T, or throws Wrong about. */
function part<T>(read: (value: unknown) => T) {
  return z.unknown().transform((value, context): T => {
    try {
      return read(value);
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      const path = error.element === undefined ? [] : [error.element];
      context.addIssue({ code: 'custom', message: error.message, params: { given: error.given }, path });
      return z.NEVER;
    }
  });
}

const OP_NAMES = [...OPS.keys()].filter((op) => isReplaceable(op) || op === 'sample');
const ACTIVATIONS = ['auto', 'f32', 'q8_32', 'q8_256', 'bf16'] as const;

const place = z.strictObject({
  device: part(readDevice).optional(),
  kernel: part((value) => readName(value, 'a kernel', kernelNames())).optional(),
  form: part((value) => readName(value, 'a form of the weights', ['file'] as const)).optional(),
  tiles: part(readTiles).optional(),
  activation: part((value) => readName(value, 'a rounding of activations', ACTIVATIONS)).optional(),
});

const rule = z.strictObject({
  match: z
    .strictObject({
      name: part(readPattern).optional(),
      op: part((value) => listOf(value, (each) => readName(each, 'an op', OP_NAMES))).optional(),
      layers: part((value) => listOf(value, readRange)).optional(),
      format: part((value) =>
        listOf(value, (each) => readName<FormatName>(each, 'a weight format', FORMAT_NAMES)),
      ).optional(),
    })
    .optional(),
  place: place.optional(),
  prefill: place.optional(),
  decode: place.optional(),
});

const KEYS = {
  '': ['match', 'place', 'prefill', 'decode'],
  match: ['name', 'op', 'layers', 'format'],
  place: ['device', 'kernel', 'form', 'tiles', 'activation'],
};

/** The rule at `path`, or its problems. `origin`: what `explain` says of it. */
export function readRule(value: unknown, path: Path, origin: string): Rule | Problem[] {
  const read = rule.safeParse(value);
  if (read.success) {
    const { match = {}, place: everywhere = {}, prefill, decode } = read.data;
    const says = [everywhere, prefill ?? {}, decode ?? {}].some((each) => Object.keys(each).length > 0);
    if (!says)
      return [{ path, message: 'a rule says something: place, prefill or decode', given: 'this one does not' }];
    const inPhases = {
      ...(prefill && { prefill: prefill as RulePlace }),
      ...(decode && { decode: decode as RulePlace }),
    };
    return { match: match as RuleMatch, place: everywhere as RulePlace, ...inPhases, origin };
  }
  return read.error.issues.flatMap((issue): Problem[] => {
    const at = [...path, ...(issue.path as (string | number)[])];
    const inside = String(issue.path[0] ?? '');
    if (issue.code === 'unrecognized_keys') {
      const known = inside === '' ? KEYS[''] : inside === 'match' ? KEYS.match : KEYS.place;
      const what = inside === '' ? 'a rule' : inside;
      return issue.keys.map((key) => ({
        path: [...at, key],
        message: `${what} has ${known.join(', ')}`,
        given: guess(key, known),
        key: true,
      }));
    }
    if (issue.code === 'custom') return [{ path: at, message: issue.message, given: String(issue.params?.given) }];
    const what = inside === '' ? 'a rule' : inside;
    return [{ path: at, message: `${what} is a mapping of keys to values`, given: shown(at, value, path.length) }];
  });
}

function shown(at: Path, value: unknown, skip: number): string {
  let found = value;
  for (const key of at.slice(skip)) found = (found as Record<string | number, unknown> | undefined)?.[key];
  return text(found);
}

function text(value: unknown): string {
  if (value instanceof RegExp) return String(value);
  return typeof value === 'object' ? JSON.stringify(value) : `"${String(value)}"`;
}

/** `"expert", did you mean experts?` */
function guess(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? `"${name}"` : `"${name}", did you mean ${near}?`;
}

function readName<T extends string>(value: unknown, what: string, known: readonly T[]): T {
  const found = known.find((name) => name === value);
  if (found !== undefined) return found;
  throw new Wrong(
    `${what} is one of ${known.join(', ')}`,
    typeof value === 'string' ? guess(value, known) : text(value),
  );
}

function listOf<T>(value: unknown, read: (value: unknown) => T): readonly T[] {
  if (!Array.isArray(value)) return [read(value)];
  if (value.length === 0) throw new Wrong('a list names at least one', 'it is empty');
  return value.map((each, element) => {
    try {
      return read(each);
    } catch (error) {
      throw error instanceof Wrong ? new Wrong(error.message, error.given, element) : error;
    }
  });
}

function readPattern(value: unknown): RegExp {
  if (value instanceof RegExp) return value;
  if (typeof value !== 'string' || value === '')
    throw new Wrong('name is a regular expression that is searched in module paths', text(value));
  try {
    return new RegExp(value, 'u');
  } catch (error) {
    const reason = String((error as Error).message).replace(/^Invalid regular expression: /, '');
    throw new Wrong('name is a regular expression', `${reason}`);
  }
}

/** `5`, `"3-60"`, `"3-last"`, `last`, [3, 60]; −1 stands for the last layer. */
function readRange(value: unknown): readonly [number, number] {
  const bound = (word: unknown): number => {
    if (word === 'last') return -1;
    const number = typeof word === 'string' && /^\d+$/.test(word) ? Number(word) : word;
    if (typeof number === 'number' && Number.isInteger(number) && number >= -1) return number;
    throw new Wrong('layers are numbers, ranges "3-60", or last', text(value));
  };
  const ends = Array.isArray(value)
    ? value
    : typeof value === 'string'
      ? value.split('-').map((end) => end.trim())
      : [value];
  if (ends.length > 2) throw new Wrong('layers are numbers, ranges "3-60", or last', text(value));
  const [first, last] = [bound(ends[0]), bound(ends[ends.length - 1])];
  if (last !== -1 && (first > last || first === -1))
    throw new Wrong('a range of layers goes from the lower to the higher, both included', `${text(value)} is empty`);
  return [first, last];
}

function readTiles(value: unknown): number | 'off' | 'auto' {
  if (value === 'off' || value === 'auto') return value;
  if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value;
  throw new Wrong('tiles is a number of rows above 0, off or auto', text(value));
}

function readDevice(value: unknown): string {
  if (typeof value !== 'string') throw new Wrong('a device is cpu, cuda:0, cuda:1 …', text(value));
  let sample: string;
  try {
    sample = parseTemplate(value)({ layer: 0, layers: 1, gpus: 1 });
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    const [given, ...rest] = error.message.split('; ');
    throw new Wrong(rest.join('; ') || 'a device is cpu, cuda:0, or has an expression like cuda:{layer}', given);
  }
  if (/^cpu$|^cuda:(-?\d+|NaN|-?Infinity)$/.test(sample)) return value;
  const [kind, number = '0'] = sample.split(':');
  const near = nearest(kind, sample.includes(':') ? ['cuda'] : ['cpu', 'cuda']);
  const meant = near === 'cuda' ? `cuda:${number}` : near;
  throw new Wrong('a device is cpu, cuda:0, cuda:1 …', `"${value}"${meant ? `, did you mean ${meant}?` : ''}`);
}
