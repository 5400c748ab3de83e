/** Rules from where users have them: a file of theirs, one that ships, or a list that a program made. */
import { readdir, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TandemError } from '../errors.ts';
import { nearest } from '../nearest.ts';
import type { Rule } from '../placement/rule.ts';
import { parseRules, parseRulesFile, type RuleDescription } from '../placement/rules-file.ts';

/** A path, the name of a file that ships (`one-gpu`), or the rules themselves. */
export type RulesOption = string | readonly (RuleDescription | Rule)[];

const SHIPPED = fileURLToPath(new URL('../../rules/', import.meta.url));

/** Names of the rule files that ship. */
export async function shippedRules(): Promise<string[]> {
  return (await readdir(SHIPPED)).filter((file) => file.endsWith('.yaml')).map((file) => basename(file, '.yaml'));
}

/** FILE_NOT_FOUND, FORMAT_INVALID (with line and column) or REQUEST_INVALID. */
export async function readRules(given: RulesOption): Promise<Rule[]> {
  if (typeof given !== 'string') return parseRules(given);
  const shipped = await shippedRules();
  const path = shipped.includes(given) ? `${SHIPPED}${given}.yaml` : given;
  const text = await readFile(path, 'utf8').catch((cause) => {
    const near = nearest(given, shipped);
    const isName = /^[\w.-]+$/.test(given) && !/\.ya?ml$/.test(given);
    throw new TandemError(cause.code === 'ENOENT' ? 'FILE_NOT_FOUND' : 'FILE_IO', {
      room: 'engine',
      rule: `rules are a YAML file, or one that ships: ${shipped.join(', ')}`,
      given: cause.code === 'ENOENT' ? `there is no ${given}` : String(cause.message),
      fix: near !== undefined && isName ? `did you mean ${near}?` : 'give the path of a rule file',
      cause,
    });
  });
  return parseRulesFile(text, shipped.includes(given) ? `${given}.yaml` : basename(given));
}
