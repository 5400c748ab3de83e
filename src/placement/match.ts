/** Which rule decides a step, and which rules never do. Pure: rules, steps, nothing of the machine. */
import type { Phase, Program, Step } from '../program/program.ts';
import type { Rule, RuleMatch, RulePlace } from './rule.ts';

/** Decoder layers of a Program. */
export function layersOf({ steps }: Program): number {
  return steps.reduce((most, { layer }) => Math.max(most, layer + 1), 0);
}

/** True where all that the match names holds. `layers`: decoder layers of the Program. */
export function matches(match: RuleMatch, step: Step, program: Program, layers: number): boolean {
  const { name, op, format } = match;
  if (op && !op.includes(step.op)) return false;
  if (match.layers && !match.layers.some((range) => within(step.layer, range, layers))) return false;
  if (name && step.name.search(name) < 0) return false; // `test` would remember its place under the flag g
  return !format || step.inputs.some((input) => isMatrix(program, input, format));
}

/** −1 in a range stands for the last layer. */
function within(layer: number, [first, last]: readonly [number, number], layers: number): boolean {
  const end = (bound: number) => (bound < 0 ? layers - 1 : bound);
  return layer >= 0 && layer >= end(first) && layer <= end(last);
}

function isMatrix(program: Program, input: Step['inputs'][number], formats: readonly string[]): boolean {
  if (input?.kind !== 'weight') return false;
  const { shape, format } = program.weights[input.weight];
  return shape.length > 1 && formats.includes(format);
}

/** What a rule says of a phase. */
export function placeIn(rule: Rule, phase: Phase): RulePlace {
  return { ...rule.place, ...rule[phase] };
}

/** The rule of each step, the first that matches it; undefined: the defaults. */
export function decide(program: Program, rules: readonly Rule[]): (Rule | undefined)[] {
  const layers = layersOf(program);
  return program.steps.map((step) => rules.find(({ match }) => matches(match, step, program, layers)));
}

/** A sentence for each rule that decides nothing (misspelt, for another model, behind one that takes all) or means more layers than there are. */
export function ruleWarnings(program: Program, rules: readonly Rule[]): string[] {
  const used = new Set(decide(program, rules));
  const layers = layersOf(program);
  return rules.flatMap((rule) => {
    if (used.has(rule)) return beyondLast(rule, program, layers);
    const matched = program.steps.filter((step) => matches(rule.match, step, program, layers));
    if (matched.length === 0) return [`${rule.origin}: this rule matches no step of ${program.name}`];
    const before = rules.find(({ match }) => matches(match, matched[0], program, layers));
    return [
      `${rule.origin}: this rule is never reached; what it matches, such as ${matched[0].name}, is decided by ${before!.origin}`,
    ];
  });
}

function beyondLast({ match, origin }: Rule, { name }: Program, layers: number): string[] {
  const range = match.layers?.find((bounds) => bounds.some((bound) => bound >= layers));
  if (range === undefined) return [];
  return [`${origin}: layers ${range[0]} to ${range[1]} go beyond the last one of ${name}, ${layers - 1}`];
}
