/**
 * Rule files: a list of rules in YAML (docs/guide/rules.md). Every message names file, line and column; `parseRules` also
 * takes the same lists as programs write them.
 */
import { type Document, isMap, isPair, isScalar, LineCounter, type Node, parseAllDocuments, visit } from 'yaml';
import { TandemError } from '../errors.ts';
import type { Rule } from './rule.ts';
import { type Path, type Problem, readRule } from './rule-shape.ts';

/** A rule as YAML and programs write it: names instead of numbers, one instead of a list, no origin. */
export interface RuleDescription {
  readonly match?: {
    readonly name?: string | RegExp;
    readonly op?: string | readonly string[];
    /** `5`, `'3-60'`, `'3-last'`, `'last'`, or a list of them. */
    readonly layers?: number | string | readonly (number | string | readonly [number, number])[];
    readonly format?: string | readonly string[];
  };
  readonly place?: PlaceDescription;
  readonly prefill?: PlaceDescription;
  readonly decode?: PlaceDescription;
  readonly origin?: string;
}

export interface PlaceDescription {
  readonly device?: string;
  readonly kernel?: string;
  readonly form?: 'file';
  readonly tiles?: number | 'off' | 'auto';
  readonly activation?: string;
}

/** Problems told in one message. */
const MOST_PROBLEMS = 5;

/** Rules of a file's text; `file` is its name in messages and origins. FORMAT_INVALID where it is no list of rules. */
export function parseRulesFile(text: string, file: string): Rule[] {
  const lines = new LineCounter();
  const [document, another] = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, logLevel: 'silent' });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  if (document === undefined) throw empty(`${file}:1:1`);
  if (another)
    throw invalid(
      'a rule file is one YAML document',
      `${at(another.range[0])}: a second one begins here`,
      'leave out the line ---, or make two files of it',
    );
  const [broken] = document.errors;
  if (broken)
    throw invalid(
      'a rule file is YAML',
      `${at(broken.pos[0])}: ${broken.message.replace(/\s+/g, ' ')}`,
      'mend the file',
    );
  const value = plainData(document, at);
  refuseForeign(value, file);
  if (value === null) throw empty(at(document.contents?.range?.[0] ?? 0));
  if (!Array.isArray(value)) throw noList(`${at(document.contents?.range?.[0] ?? 0)}: it is none`);
  const line = (index: number) => lines.linePos(offsetOf(document, [index], false)).line;
  return read(
    value,
    (index) => `${file}:${line(index)}`,
    (problem) => at(offsetOf(document, problem.path, problem.key)),
  );
}

/** Rules that a program gives; those that have an origin keep it. REQUEST_INVALID where they are none. */
export function parseRules(value: readonly (RuleDescription | Rule)[], name = 'rules'): Rule[] {
  if (!Array.isArray(value))
    throw new TandemError('REQUEST_INVALID', {
      room: 'placement',
      rule: 'rules are a list, the name of a shipped rule file or a path',
      given: `got ${value === null ? 'null' : typeof value}`,
    });
  const plain = value.map((each: RuleDescription | Rule | null) => {
    if (typeof each !== 'object' || each === null) return each;
    const { origin: _, ...rest } = each;
    return rest;
  });
  const origin = (index: number) => value[index]?.origin ?? `${name}[${index}]`;
  return read(
    plain,
    origin,
    ({ path }) => `${name}${path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`)).join('')}`,
  );
}

/** Aliases that multiply or hold themselves are refused. */
function plainData(document: Document, at: (offset: number) => string): unknown {
  const refuse = (why: string) => invalid('aliases of a rule file end', `${at(firstAlias(document))}: ${why}`, 'write out what it stands for'); // biome-ignore format: one thought a line
  let value: unknown;
  try {
    value = document.toJS();
  } catch (error) {
    throw refuse((error as Error).message);
  }
  if (holdsItself(value, [])) throw refuse('what it stands for holds itself');
  return value;
}

function firstAlias(document: Document): number {
  let found = 0;
  visit(document, {
    Alias(_, { range }) {
      found = range?.[0] ?? 0;
      return visit.BREAK;
    },
  });
  return found;
}

function holdsItself(value: unknown, around: readonly unknown[]): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return around.includes(value) || Object.values(value).some((each) => holdsItself(each, [...around, value]));
}

function empty(where: string): TandemError {
  return noList(`${where}: it is empty`);
}

function noList(given: string): TandemError {
  return invalid('a rule file is a list of rules', given, 'begin each rule with "- match:" (docs/guide/rules.md)');
}

function read(
  value: readonly unknown[],
  origin: (index: number) => string,
  where: (problem: Problem) => string,
): Rule[] {
  const rules: Rule[] = [];
  const problems: Problem[] = [];
  value.forEach((each, index) => {
    const found = readRule(each, [index], origin(index));
    if (Array.isArray(found)) problems.push(...found);
    else rules.push(found);
  });
  const [first, ...others] = problems;
  if (!first) return rules;
  const more = others
    .slice(0, MOST_PROBLEMS - 1)
    .map((problem) => `${where(problem)}: ${problem.given} (${problem.message})`);
  if (others.length >= MOST_PROBLEMS) more.push(`and ${others.length - MOST_PROBLEMS + 1} more`);
  throw invalid(
    first.message,
    [`${where(first)}: ${first.given}`, ...more].join('; '),
    'docs/guide/rules.md has examples',
  );
}

function invalid(rule: string, given: string, fix: string): TandemError {
  return new TandemError('FORMAT_INVALID', { room: 'placement', rule, given, fix });
}

/** Where a path stands in the text; the nearest thing around it where it is not there. */
function offsetOf(document: Document, path: Path, key = false): number {
  const holder = document.getIn(key ? path.slice(0, -1) : path, true) as Node | undefined;
  if (key && isMap(holder))
    for (const item of holder.items)
      if (isPair(item) && isScalar(item.key) && item.key.value === path[path.length - 1])
        return item.key.range?.[0] ?? 0;
  if (holder?.range) return holder.range[0];
  return path.length > 0 ? offsetOf(document, path.slice(0, -1)) : 0;
}

/** A file of another program that a rule of ours resembles. */
function refuseForeign(value: unknown, file: string): void {
  if (!Array.isArray(value)) return;
  const foreign = value.some((each) => {
    if (typeof each !== 'object' || each === null) return false;
    const { match, replace } = each as { match?: { class?: unknown } | null; replace?: unknown };
    return replace !== undefined || match?.class !== undefined;
  });
  if (!foreign) return;
  throw invalid(
    'a rule file has Tandem rules (match and place)',
    `${file} is a KTransformers optimize rule file (match.class, replace)`,
    'docs/guide/rules.md has a table from its words to these; rules/one-gpu.yaml is what most of those files say',
  );
}
