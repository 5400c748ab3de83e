/**
 * One Program, two lowerings: passes that read a prompt and passes that generate may be placed differently. Where only the
 * computing differs one Program serves both, its steps naming what `decode` changes; where devices differ there are two.
 */
import { TandemError } from '../errors.ts';
import {
  executionOf,
  PHASES,
  type Phase,
  type Program,
  type Step,
  type StepExecution,
  type StepPlacement,
} from '../program/program.ts';
import { type LowerOptions, lower, type Machine } from './lower.ts';

/** The lowering of each phase. PLACEMENT_IMPOSSIBLE where a cache would have to lie in two places. */
export function lowerPhases(
  program: Program,
  machine: Machine,
  options: Omit<LowerOptions, 'phase'> = {},
): Readonly<Record<Phase, Program>> {
  const [prefill, decode] = PHASES.map((phase) => lower(program, machine, { ...options, phase }));
  for (const { name, one, other, cache } of moved(program, prefill, decode)) {
    if (cache === undefined) continue;
    throw differing(
      'a cache lies on one device in all passes',
      `${name} is on ${one} to read prompts, on ${other} to generate`,
      'place attention the same in both phases',
    );
  }
  return { prefill, decode };
}

/** Both in one Program. PLACEMENT_IMPOSSIBLE where a step changes its device, which needs a backend with two. */
export function lowerBoth(program: Program, machine: Machine, options: Omit<LowerOptions, 'phase'> = {}): Program {
  if (!options.rules?.some(({ prefill, decode }) => prefill ?? decode)) return lower(program, machine, options);
  const { prefill, decode } = lowerPhases(program, machine, options);
  for (const { name, one, other } of moved(program, prefill, decode))
    throw differing(
      'this backend runs a step on one device in all passes',
      `${name} is on ${one} to read prompts, on ${other} to generate`,
      'give the device in place, not in prefill or decode',
    );
  return { ...prefill, steps: prefill.steps.map((step, index) => withDecode(step, decode.steps[index])) };
}

/** Where and how the steps compute in both phases, without the reasons: equal lists give equal numbers. */
export function executionsOf({ steps }: Program): Omit<StepPlacement, 'origin' | 'decode'>[] {
  return steps.flatMap((step) =>
    PHASES.map((phase) => {
      const { activation = 'f32', middle, tiles, kernel } = executionOf(step, phase) ?? {};
      return { device: step.placement?.device ?? 'cpu', activation, middle, tiles, kernel };
    }),
  );
}

function withDecode(step: Step, { placement: other }: Step): Step {
  const { placement } = step;
  if (!placement || !other || sameExecution(placement, other)) return step;
  const { device: _, ...decode } = other;
  return { ...step, placement: { ...placement, decode } };
}

function sameExecution(a: StepExecution, b: StepExecution): boolean {
  return (['activation', 'middle', 'tiles', 'kernel'] as const).every((key) => a[key] === b[key]);
}

/** Steps whose device differs. */
function moved(program: Program, prefill: Program, decode: Program) {
  const devicesOf = ({ steps }: Program) => new Map(steps.map(({ name, placement }) => [name, placement?.device]));
  const [ones, others] = [devicesOf(prefill), devicesOf(decode)];
  return program.steps.flatMap(({ name, attributes: { cache } }) => {
    const [one, other] = [ones.get(name), others.get(name)];
    return one === other ? [] : [{ name, one, other, cache }];
  });
}

function differing(rule: string, given: string, fix: string): TandemError {
  return new TandemError('PLACEMENT_IMPOSSIBLE', { room: 'placement', rule, given, fix });
}
