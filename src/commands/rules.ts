/** `--rules` and `--defer-experts` of commands that place a Program themselves. */
import { readRules } from '../engine/rules.ts';
import { deferralWarning, withDeferredExperts } from '../models/deferred-experts.ts';
import { ruleWarnings } from '../placement/match.ts';
import type { Rule } from '../placement/rule.ts';
import type { Program } from '../program/program.ts';
import { paint } from './terminal.ts';

/** Lines that a person reads. */
const MOST_WARNINGS = 20;

/** The rules named, none where none are; those that decide nothing in any of the Programs are told on stderr. */
export async function rulesOf(
  { rules: file }: { readonly rules?: string },
  ...programs: readonly Program[]
): Promise<Rule[]> {
  const rules = file === undefined ? [] : await readRules(file);
  const [first = [], ...others] = programs.map((program) => ruleWarnings(program, rules));
  const warnings = first.filter((warning) => others.every((other) => other.includes(warning)));
  const more = warnings.length > MOST_WARNINGS ? [`and ${warnings.length - MOST_WARNINGS} more`] : [];
  for (const warning of [...warnings.slice(0, MOST_WARNINGS), ...more]) warn(`[placement] ${warning}`);
  return rules;
}

/** With so many experts of a token a layer late, which is told on stderr. */
export function deferredOf({ deferExperts = 0 }: { readonly deferExperts?: number }, program: Program): Program {
  if (deferExperts === 0) return program;
  const deferred = withDeferredExperts(program, deferExperts);
  const warning = deferralWarning(program, deferred, deferExperts);
  if (warning !== undefined) warn(`[models] ${warning}`);
  return deferred;
}

/** One sentence on stderr. */
export function warn(text: string): void {
  process.stderr.write(`${paint('yellow', text, process.stderr)}\n`);
}
