/**
 * What stands between devices. Where a value crosses, a `copy` is inserted; where the CPU computes between steps of
 * accelerators, its steps become a task, and what does not need its results is moved between `submit` and `wait`:
 *
 *     %25 rms-norm @cuda:0 → router @cuda:0 → copy @cpu ×3 → submit → experts @cpu
 *                                             shared experts @cuda:0, meanwhile
 *                                             wait → copy @cuda:0 → add @cuda:0
 *
 * The order respects the data; run step by step, it gives the same numbers as before.
 */
import { valueDevices } from '../program/buffers.ts';
import type { Program, Step } from '../program/program.ts';
import type { Operand, Value } from '../program/tensor.ts';
import { HOST } from '../program/validate-devices.ts';

/** Steps that are scheduled together: neighbours on the CPU, or one step of an accelerator; deferred experts alone. */
interface Unit {
  readonly steps: readonly Step[];
  readonly device: string;
  /** Units that it needs, all before it. */
  readonly needs: ReadonlySet<number>;
  /** On the CPU, and needs what an accelerator computed. */
  readonly task: boolean;
}

/** A placed Program on several devices, with copies and tasks; on one device the same. */
export function connect(program: Program): Program {
  const devices = new Set(program.steps.map(({ placement }) => placement?.device));
  return devices.size > 1 ? new Connector(program).connect() : program;
}

class Connector {
  readonly #program: Program;
  readonly #units: readonly Unit[];
  readonly #deviceOf: readonly (string | undefined)[];
  /** Unit that writes each value. */
  readonly #writer = new Map<number, number>();
  readonly #values: Value[];
  readonly #steps: Step[] = [];
  readonly #done = new Set<number>();
  /** Copies made: value and device → value. */
  readonly #copies = new Map<string, number>();
  /** Tasks submitted and not waited for, oldest first: unit and task. */
  readonly #running: { readonly unit: number; readonly task: number; readonly wait: Step }[] = [];
  #tasks = 0;

  constructor(program: Program) {
    this.#program = program;
    this.#values = [...program.values];
    this.#deviceOf = valueDevices(program);
    this.#units = unitsOf(program);
    this.#units.forEach(({ steps }, unit) => {
      for (const { outputs } of steps) for (const id of outputs) this.#writer.set(id, unit);
    });
  }

  connect(): Program {
    this.#units.forEach(({ task }, unit) => {
      if (task) {
        this.#emitAll(this.#ancestors(unit));
        this.#emit(unit);
      }
    });
    this.#emitAll(this.#units.flatMap((_, unit) => (this.#done.has(unit) ? [] : [unit])));
    while (this.#running.length > 0) this.#waitOldest();
    return { ...this.#program, values: this.#values, steps: this.#steps };
  }

  /** What a unit needs and is not there yet, in the order of the Program. */
  #ancestors(unit: number): number[] {
    const found = new Set<number>();
    const open = [unit];
    for (let at = open.pop(); at !== undefined; at = open.pop())
      for (const need of this.#units[at].needs)
        if (!found.has(need) && !this.#done.has(need)) {
          found.add(need);
          open.push(need);
        }
    return [...found].sort((a, b) => a - b);
  }

  /** All of them; first what needs no task that runs. */
  #emitAll(units: readonly number[]): void {
    const left = [...units];
    while (left.length > 0) {
      const free = left.findIndex((unit) => this.#isReady(unit) && !this.#mustWait(unit));
      // The first one is always ready: what it needs stands before it.
      this.#emit(left.splice(Math.max(free, 0), 1)[0]);
    }
  }

  #isReady(unit: number): boolean {
    for (const need of this.#units[unit].needs) if (!this.#done.has(need)) return false;
    return true;
  }

  #mustWait(unit: number): boolean {
    const { device, needs } = this.#units[unit];
    return device !== HOST && this.#running.some((running) => needs.has(running.unit));
  }

  #emit(unit: number): void {
    const { steps, device, task } = this.#units[unit];
    this.#done.add(unit);
    const own = new Set(steps.flatMap(({ outputs }) => outputs));
    const ready = steps.map((step) => ({
      ...step,
      inputs: step.inputs.map((input) => this.#bring(input, device, own, step.layer)),
    }));
    if (task) this.#submit(unit, ready);
    this.#steps.push(...ready);
  }

  #submit(unit: number, steps: readonly Step[]): void {
    const task = this.#tasks++;
    const [{ name, layer }] = steps;
    const control = (op: string, attributes: Step['attributes']): Step => ({
      op,
      name: `${name}.${op}`,
      layer,
      inputs: [],
      outputs: [],
      attributes,
      placement: { device: HOST, activation: 'f32', origin: `accelerators go on while ${HOST} computes` },
    });
    this.#steps.push(control('submit', { task, steps: steps.length }));
    this.#running.push({ unit, task, wait: control('wait', { task }) });
  }

  #waitOldest(): void {
    this.#steps.push(this.#running.shift()!.wait);
  }

  /** The operand as `device` can read it. */
  #bring(input: Operand, device: string, own: ReadonlySet<number>, layer: number): Operand {
    if (input?.kind !== 'value' || own.has(input.value)) return input;
    const from = this.#deviceOf[input.value];
    if (from === device) return input;
    const writer = this.#writer.get(input.value);
    // Tasks end in the order in which they began.
    while (this.#running.some(({ unit }) => unit === writer)) this.#waitOldest();
    const key = `${input.value} ${device}`;
    let copy = this.#copies.get(key);
    if (copy === undefined) {
      const value = this.#program.values[input.value];
      copy = this.#values.length;
      const name = `${value.name}.to.${device}`;
      this.#values.push({ ...value, id: copy, name });
      this.#steps.push({
        op: 'copy',
        name,
        layer,
        inputs: [{ kind: 'value', value: value.id, start: 0, columns: value.columns }],
        outputs: [copy],
        attributes: {},
        placement: { device, activation: 'f32', origin: `computed on ${from}, read on ${device}` },
      });
      this.#copies.set(key, copy);
    }
    return { ...input, value: copy };
  }
}

/** Experts that nobody reads in their own layer (models/deferred-experts.ts): tasks of their own, waited for a layer later. */
function deferredSteps({ steps }: Program): Set<Step> {
  const firstReader = new Map<number, number>();
  for (const { layer, inputs } of steps)
    for (const input of inputs)
      if (input?.kind === 'value' && !firstReader.has(input.value)) firstReader.set(input.value, layer);
  return new Set(steps.filter(({ op, layer, outputs }) => op === 'experts' && firstReader.get(outputs[0])! > layer));
}

function unitsOf(program: Program): Unit[] {
  const units: { steps: Step[]; device: string; needs: Set<number>; task: boolean }[] = [];
  const writer = new Map<number | string, number>();
  /** Units that need, directly or not, what an accelerator computed, or are on one. */
  const accelerated = new Set<number>();
  const deferred = deferredSteps(program);
  for (const step of program.steps) {
    const device = step.placement!.device;
    const last = units[units.length - 1];
    const alone = deferred.has(step) || (last && deferred.has(last.steps[0]));
    const joins = device === HOST && last?.device === HOST && !alone;
    const unit = joins ? last : { steps: [], device, needs: new Set<number>(), task: false };
    if (!joins) units.push(unit);
    const number = units.length - 1;
    unit.steps.push(step);
    const cache = step.attributes.cache === undefined ? undefined : `cache ${step.attributes.cache}`;
    const read = step.inputs.flatMap((input): (number | string)[] => (input?.kind === 'value' ? [input.value] : []));
    if (cache !== undefined) read.push(cache);
    for (const key of read) {
      const from = writer.get(key);
      if (from !== undefined && from !== number) unit.needs.add(from);
    }
    for (const id of step.outputs) writer.set(id, number);
    if (cache !== undefined && step.outputs.length === 0) writer.set(cache, number);
    if (device !== HOST || [...unit.needs].some((need) => accelerated.has(need))) accelerated.add(number);
    unit.task = device === HOST && accelerated.has(number);
  }
  return units;
}
