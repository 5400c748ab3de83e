/** Fewer (or more) routed experts a token than the model was trained with: a Program whose routers choose another k. */
import { TandemError } from '../errors.ts';
import type { Program, Step } from '../program/program.ts';
import type { Value } from '../program/tensor.ts';

/** How many experts a token goes to; undefined where there are none. */
export function expertsPerToken(program: Program): number | undefined {
  const router = program.steps.find(isRouter);
  return router && Number(router.attributes.topk);
}

/** The same Program with `count` experts a token; lossy. REQUEST_INVALID outside [1, what the router's groups hold]. */
export function withExpertsPerToken(program: Program, count: number): Program {
  const routers = program.steps.filter(isRouter);
  const most = Math.min(...routers.map((step) => mostOf(program, step)));
  if (routers.length === 0 || !Number.isInteger(count) || count < 1 || count > most)
    throw new TandemError('REQUEST_INVALID', {
      room: 'models',
      rule:
        routers.length === 0
          ? 'expertsPerToken is for models with routed experts'
          : `expertsPerToken is a whole number from 1 to ${most} (${program.name} was trained with ${expertsPerToken(program)})`,
      given: routers.length === 0 ? `${program.name} has none` : String(count),
      fix: routers.length === 0 ? 'leave it out' : undefined,
    });
  const chosen = new Set(routers.flatMap(({ outputs }) => outputs));
  return {
    ...program,
    values: program.values.map((value, id): Value => (chosen.has(id) ? { ...value, columns: count } : value)),
    steps: program.steps.map((step) => ({
      ...step,
      // Whoever reads what a router chose reads all of it.
      inputs: step.inputs.map((input) =>
        input?.kind === 'value' && chosen.has(input.value) ? { ...input, columns: count } : input,
      ),
      ...(isRouter(step) && { attributes: { ...step.attributes, topk: count } }),
    })),
  };
}

/** What is said about it, for whoever runs it. */
export function lossyWarning(trained: number, count: number): string | undefined {
  if (count === trained) return undefined;
  const [speed, what] = count < trained ? ['faster', 'lossy'] : ['slower', 'not what it was made for'];
  return `${count} experts a token where the model was trained with ${trained}: ${speed}, and ${what}`;
}

function isRouter({ op }: Step): boolean {
  return op === 'router';
}

function mostOf(program: Program, { inputs, attributes }: Step): number {
  const [logits] = inputs;
  const experts = logits?.kind === 'value' ? program.values[logits.value].columns : 0;
  return (experts / Number(attributes.groups)) * Number(attributes.groupTopk);
}
