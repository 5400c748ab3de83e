/** When to stop, asked after every token: the classes of @huggingface/transformers under their names. */

/** Extend it and override `_call`, or take the one below. */
export class StoppingCriteria {
  /** All ids of each sequence, prompt and answer; one answer a sequence: true stops it. */
  _call(_input_ids: readonly (readonly bigint[])[], _scores?: unknown): boolean[] {
    throw new Error('a StoppingCriteria overrides _call');
  }
}

/** Stops when somebody says so; what was generated until then is the result. */
export class InterruptableStoppingCriteria extends StoppingCriteria {
  interrupted = false;

  interrupt(): void {
    this.interrupted = true;
  }

  reset(): void {
    this.interrupted = false;
  }

  override _call(input_ids: readonly (readonly bigint[])[]): boolean[] {
    return input_ids.map(() => this.interrupted);
  }
}

/** Several as one: the first that wants to stop does. */
export class StoppingCriteriaList extends StoppingCriteria {
  readonly criteria: StoppingCriteria[] = [];

  push(item: StoppingCriteria): void {
    this.criteria.push(item);
  }

  extend(items: StoppingCriteriaList | readonly StoppingCriteria[]): void {
    this.criteria.push(...(items instanceof StoppingCriteriaList ? items.criteria : items));
  }

  override _call(input_ids: readonly (readonly bigint[])[], scores?: unknown): boolean[] {
    return input_ids.map((ids) => this.criteria.some((one) => one._call([ids], scores)[0] === true));
  }
}

/** True where one of them wants to stop. */
export function wantsToStop(criteria: readonly StoppingCriteria[], ids: readonly bigint[]): boolean {
  return criteria.some((one) => one._call([ids])[0] === true);
}
