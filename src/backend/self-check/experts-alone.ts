/**
 * An `experts` step of the processor as a small Program on a GPU, with some of its experts: what the card computes of experts that it
 * holds copies of (decision 016) goes over the same kernels.
 */
import type { Checkpoint, TensorInfo } from '../../formats/checkpoint.ts';
import { memorySource } from '../../formats/memory-source.ts';
import { OPS } from '../../ops/index.ts';
import type { Attribute, Program, Step } from '../../program/program.ts';
import { shapeContext } from '../../program/rules.ts';
import type { Operand, Value, Weight } from '../../program/tensor.ts';
import { readMatrix } from '../reference-weights.ts';

/** Experts of it: more than a check visits. */
const EXPERTS = 4;
/** Of the table that rows come from. */
const TOKENS = 8;

export interface ExpertsAlone {
  /** Not placed. */
  readonly program: Program;
  readonly checkpoint: Checkpoint;
}

export async function expertsAlone(of: Program, step: Step, checkpoint: Checkpoint): Promise<ExpertsAlone> {
  const made = new Tensors();
  const values: Value[] = [];
  const weights: Weight[] = [];
  const steps: Step[] = [];
  const given = step.inputs.slice(3).map((input) => (input?.kind === 'weight' ? of.weights[input.weight] : undefined));
  const [all, , hidden] = given[0]!.shape;
  const count = Math.min(EXPERTS, all);
  const draft: Program = {
    name: 'experts-alone',
    vocabSize: TOKENS,
    contextLength: of.contextLength,
    values,
    weights,
    kv: { ...of.kv, layers: [] },
    steps: [],
    logits: 0,
  };
  const add = (name: string, op: string, inputs: Operand[], attributes: Record<string, Attribute> = {}): Operand[] => {
    const bare: Step = { op, name, layer: 0, inputs, outputs: [], attributes };
    const outputs = OPS.get(op)!
      .shape(shapeContext(draft, bare, OPS.get(op)!))
      .map((shape, i) => values.push({ id: values.length, name: `${name}.${i}`, ...shape }) - 1);
    steps.push({ ...bare, outputs });
    return outputs.map((value) => ({ kind: 'value', value, start: 0, columns: values[value].columns }));
  };
  const zeros = (name: string, shape: readonly [number, number]): Operand => {
    made.add(name, shape, 'f32', new Uint8Array(4 * shape[0] * shape[1]));
    return { kind: 'weight', weight: weights.push({ id: weights.length, name, shape, format: 'f32', parts: [name] }) - 1 }; // biome-ignore format: one thought
  };
  /** Of the first of these experts to the last of all, as far apart as there is room. */
  const some = async (weight: Weight): Promise<Operand> => {
    const id = weights.length;
    const matrices = Array.from({ length: count }, (_, i) => Math.floor((i * (all - 1)) / Math.max(1, count - 1)));
    const read = await Promise.all(matrices.map((matrix) => readMatrix(checkpoint, weight, matrix)));
    const shape = [count, ...weight.shape.slice(1)];
    const { rows: _, byColumns: __, parts: ___, scales, ...rest } = weight;
    const name = `experts.${id}`;
    made.add(name, shape, weight.format, joined(read.map(({ data }) => data)));
    if (scales !== undefined) made.add(`${name}.scales`, [count], 'u8', joined(read.map((each) => each.scales!)));
    weights.push({
      ...rest,
      id,
      name,
      shape,
      parts: [name],
      ...(scales !== undefined && { scales: [`${name}.scales`] }),
    });
    return { kind: 'weight', weight: id };
  };
  const [rows] = add('rows', 'embed', [zeros('table', [TOKENS, 1])]);
  const [x] = add('x', 'linear', [rows, zeros('to x', [hidden, 1])]);
  const [scores] = add('scores', 'linear', [rows, zeros('to scores', [count, 1])]);
  const chosen = step.inputs[1];
  const topk = Math.min(count, chosen?.kind === 'value' ? chosen.columns : 1);
  const routing = { topk, groups: 1, groupTopk: 1, score: 'softmax', groupScore: 'max', normalize: false, scale: 1 };
  const [ids, shares] = add('router', 'router', [scores, null], routing);
  const operands: Operand[] = [];
  for (const weight of given) operands.push(weight ? await some(weight) : null);
  const [y] = add(step.name, 'experts', [x, ids, shares, ...operands], { ...step.attributes });
  const [last] = add('last', 'gather-rows', [y]);
  const [logits] = add('logits', 'linear', [last, zeros('head', [TOKENS, hidden])]);
  return {
    program: { ...draft, steps, logits: (logits as Extract<Operand, { kind: 'value' }>).value },
    checkpoint: made.checkpoint(),
  };
}

/** Tensors in memory, one file. */
class Tensors {
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #bytes: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  #end = 0;

  add(name: string, shape: readonly number[], format: string, bytes: Uint8Array): void {
    this.#tensors.set(name, { name, shape, format, file: 0, offset: this.#end, bytes: bytes.length });
    this.#bytes.push({ offset: this.#end, bytes });
    this.#end = Math.ceil((this.#end + bytes.length) / 64) * 64;
  }

  checkpoint(): Checkpoint {
    const file = new Uint8Array(this.#end);
    for (const { offset, bytes } of this.#bytes) file.set(bytes, offset);
    const tensors = this.#tensors;
    return {
      kind: 'gguf',
      name: 'some experts',
      files: [memorySource(file)],
      tensors,
      metadata: new Map(),
      async readTensor(name, start, end) {
        const { offset, bytes, shape } = tensors.get(name)!;
        const row = bytes / shape[0];
        return file.slice(offset + (start ?? 0) * row, offset + (end ?? shape[0]) * row);
      },
      close: async () => {},
    };
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
