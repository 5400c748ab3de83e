/** Rules from where users have them: a file of theirs, one that ships, or a list that a program made. */
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TandemError } from '../errors.ts';
import { systemReason } from '../formats/file-source.ts';
import { nearest } from '../nearest.ts';
import type { Rule } from '../placement/rule.ts';
import { parseRules, parseRulesFile, type RuleDescription } from '../placement/rules-file.ts';
import { checkPatterns } from './rule-patterns.ts';

/** A path, the name of a file that ships (`one-gpu`), or the rules themselves. */
export type RulesOption = string | readonly (RuleDescription | Rule)[];

const SHIPPED = fileURLToPath(new URL('../../rules/', import.meta.url));

/** Names of the rule files that ship. */
export async function shippedRules(): Promise<string[]> {
  return (await readdir(SHIPPED)).filter((file) => file.endsWith('.yaml')).map((file) => basename(file, '.yaml'));
}

/** Rules are some dozens; a file of more is something else. */
const MOST_BYTES = 1 << 20;

/** FILE_NOT_FOUND, FILE_IO, FORMAT_INVALID (with line and column) or REQUEST_INVALID. */
export async function readRules(given: RulesOption): Promise<Rule[]> {
  const rules = typeof given === 'string' ? await readFileOf(given) : parseRules(given);
  checkPatterns(rules);
  return rules;
}

async function readFileOf(given: string): Promise<Rule[]> {
  const shipped = await shippedRules();
  const path = shipped.includes(given) ? `${SHIPPED}${given}.yaml` : given;
  const bytes = await beginningOf(path).catch((cause) => {
    const near = nearest(given, shipped);
    const isName = /^[\w.-]+$/.test(given) && !/\.ya?ml$/.test(given);
    throw new TandemError(cause.code === 'ENOENT' ? 'FILE_NOT_FOUND' : 'FILE_IO', {
      room: 'engine',
      rule: `rules are a YAML file, or one that ships: ${shipped.join(', ')}`,
      given: cause.code === 'ENOENT' ? `there is no ${given}` : `${given}: ${systemReason(cause)}`,
      fix: near !== undefined && isName ? `did you mean ${near}?` : 'give the path of a rule file',
      cause,
    });
  });
  return parseRulesFile(textOf(bytes, given), shipped.includes(given) ? `${given}.yaml` : basename(given));
}

/** A device or a wrong file may have no end. */
async function beginningOf(path: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of createReadStream(path, { end: MOST_BYTES })) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** UTF-8, whose mark at the beginning is taken off. */
function textOf(bytes: Uint8Array, file: string): string {
  const refuse = (rule: string, what: string) =>
    new TandemError('FORMAT_INVALID', { room: 'engine', rule, given: `${file} ${what}`, fix: 'docs/guide/rules.md has examples' }); // biome-ignore format: one thought a line
  if (bytes.length > MOST_BYTES) throw refuse('a rule file has at most 1 MiB', 'is larger');
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw refuse('a rule file is text in UTF-8', 'is not');
  }
}
