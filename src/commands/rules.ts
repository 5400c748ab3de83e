/** `--rules` of commands that place a Program themselves. */
import { readRules } from '../engine/rules.ts';
import { ruleWarnings } from '../placement/match.ts';
import type { Rule } from '../placement/rule.ts';
import type { Program } from '../program/program.ts';
import { paint } from './terminal.ts';

/** Lines that a person reads. */
const MOST_WARNINGS = 20;

/** The rules named, none where none are; those that decide nothing are told on stderr. */
export async function rulesOf({ rules: file }: { readonly rules?: string }, program: Program): Promise<Rule[]> {
  const rules = file === undefined ? [] : await readRules(file);
  const warnings = ruleWarnings(program, rules);
  const more = warnings.length > MOST_WARNINGS ? [`and ${warnings.length - MOST_WARNINGS} more`] : [];
  for (const warning of [...warnings.slice(0, MOST_WARNINGS), ...more])
    process.stderr.write(`${paint('yellow', `[placement] ${warning}`, process.stderr)}\n`);
  return rules;
}
