/**
 * One step on a GPU: a backend for the conformance harness (test/conformance/harness.ts). Its Programs have values that no step writes;
 * on a GPU a value lies where a step writes it, so steps that nobody runs are put before the others.
 */
import type { Backend, Executable, Stepper } from '../../src/backend/backend.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import type { Program, Step } from '../../src/program/program.ts';
import type { Operand, Rows, Value, Weight } from '../../src/program/tensor.ts';
import { type MemoryTensor, memoryCheckpoint } from '../conformance/memory-checkpoint.ts';

const DEVICE = 'cuda:0';

export const oneOpOnGpu: Backend = {
  name: DEVICE,
  async prepare(program, checkpoint, options) {
    const tensors: MemoryTensor[] = [];
    for (const { name, shape, format } of checkpoint.tensors.values())
      tensors.push({ name, shape, format, bytes: await checkpoint.readTensor(name) });
    const producers = new Producers(program, tensors);
    const executable = await nativeBackend().prepare(producers.program(), memoryCheckpoint(tensors), options);
    return shifted(executable, program, producers.count);
  },
};

/** The steps of `program` behind `before` others. */
function shifted(executable: Executable, program: Program, before: number): Executable {
  return {
    program,
    pages: executable.pages,
    description: executable.description,
    run: (batch) => executable.run(batch),
    cancel: (slot) => executable.cancel(slot),
    dispose: () => executable.dispose(),
    [Symbol.asyncDispose]: () => executable.dispose(),
    async start(batch): Promise<Stepper> {
      const stepper = await executable.start(batch);
      return { ...stepper, step: (index) => stepper.step(index + before) };
    },
  };
}

/** Writers of the values that are given: embed, linear, then what makes integers or output rows of it. */
class Producers {
  readonly #program: Program;
  readonly #values: Value[];
  readonly #weights: Weight[];
  readonly #tensors: MemoryTensor[];
  readonly #steps: Step[] = [];
  #table: Operand | undefined;

  constructor(program: Program, tensors: MemoryTensor[]) {
    this.#program = program;
    this.#values = [...program.values];
    this.#weights = [...program.weights];
    this.#tensors = tensors;
    const written = new Set(program.steps.flatMap(({ outputs }) => outputs));
    for (const { inputs } of program.steps)
      for (const input of inputs) {
        if (input?.kind !== 'value' || written.has(input.value)) continue;
        written.add(input.value);
        this.#produce(program.values[input.value]);
      }
  }

  get count(): number {
    return this.#steps.length;
  }

  program(): Program {
    const steps = [...this.#steps, ...this.#program.steps].map((step) => ({
      ...step,
      placement: { ...step.placement, activation: 'f32' as const, middle: undefined, device: DEVICE },
    }));
    return { ...this.#program, values: this.#values, weights: this.#weights, steps };
  }

  #produce({ id, type, rows, columns }: Value): void {
    this.#table ??= this.#step('embed', [this.#weight([this.#program.vocabSize, 1])], this.#value('T', 1));
    const dense = type === 'f32' && rows === 'T' ? id : this.#value('T', columns);
    const whole = this.#step('linear', [this.#table, this.#weight([columns, 1]), null], dense);
    if (type === 'f32' && rows === 'O') this.#step('gather-rows', [whole], id);
    if (type === 'i32')
      this.#step('router', [whole, null], id, this.#value('T', columns), {
        topk: columns,
        groups: 1,
        groupTopk: 1,
        score: 'softmax',
        groupScore: 'max',
        normalize: false,
        scale: 1,
      });
  }

  #value(rows: Rows, columns: number): number {
    const id = this.#values.length;
    this.#values.push({ id, name: `given ${id}`, type: 'f32', rows, columns });
    return id;
  }

  #weight(shape: readonly [number, number]): Operand {
    const id = this.#weights.length;
    const name = `given ${id}`;
    this.#weights.push({ id, name, shape, format: 'f32', parts: [name] });
    this.#tensors.push({ name, shape, format: 'f32', bytes: new Uint8Array(4 * shape[0] * shape[1]) });
    return { kind: 'weight', weight: id };
  }

  #step(op: string, inputs: Operand[], output: number, other?: number, attributes: Step['attributes'] = {}): Operand {
    const outputs = other === undefined ? [output] : [output, other];
    this.#steps.push({ op, name: `given ${output}`, layer: 0, inputs, outputs, attributes });
    return { kind: 'value', value: output, start: 0, columns: this.#values[output].columns };
  }
}
