/**
 * What a Program weighs: bytes that lie in memory, bytes and products that one token costs. Pure arithmetic over shapes,
 * the same for a file, a repository of which only headers were read, and a bare description. All sizes in bytes.
 */
import type { FormatName } from '../formats/dtype.ts';
import { KV_BYTES, kvElementsPerToken, type Program, type Step } from '../program/program.ts';
import type { Weight } from '../program/tensor.ts';
import { bufferBytes, weightBytes } from './budget.ts';
import { type GpuWork, gpuWorksOf } from './gpu-memory.ts';

/**
 * `routed`: experts that the router chooses; `shared`: experts that every token takes; `head`: the last matrix, of output
 * rows alone; `embed`: a table of which a token reads one row; `dense`: all else.
 */
export type Role = 'routed' | 'shared' | 'head' | 'embed' | 'dense';

/** Weights that cost alike: one op, role and format. */
export interface MatrixWork {
  readonly op: 'linear' | 'experts' | 'mla' | 'embed' | 'other';
  readonly role: Role;
  readonly format: FormatName;
  /** Elements, and their bytes with scales; of experts all. */
  readonly weights: number;
  readonly bytes: number;
  /** Experts of a layer and those of them that a token meets; 1 and 1 where there is no choice. */
  readonly experts: number;
  readonly chosen: number;
}

/** Layers whose attention costs alike. */
export interface AttentionWork {
  readonly op: 'attention' | 'mla';
  readonly layers: number;
  /** Products of one query row with one cached position, all heads: scores and sum over values. */
  readonly productsPerPair: number;
  /** `mla` for many rows: keys and values of a head are expanded, and a pair costs less. Else as `productsPerPair`. */
  readonly expandedPerPair: number;
  /** `mla`: elements of the matrices that expand a position or absorb a row. */
  readonly weights: number;
  /** Positions that a row sees at most; absent: all. */
  readonly window?: number;
  /** Bytes cached for a token in all these layers. */
  readonly kvBytesPerToken: number;
}

export interface Sizes {
  readonly architecture: string;
  /** L: layers with routed experts. */
  readonly moeLayers: number;
  /** E and k; 0 in a dense model. */
  readonly experts: number;
  readonly chosen: number;
  readonly contextLength: number;
  /** e: one expert, gate, up and down, averaged over layers; 0 in a dense model. */
  readonly expertBytes: number;
  /** R: routed bytes that one token reads. */
  readonly routedPerToken: number;
  /** S: all else that one token reads. */
  readonly densePerToken: number;
  /** Of S what shared experts are. */
  readonly sharedPerToken: number;
  /** A: all routed experts. */
  readonly routedBytes: number;
  /** Everything, each weight once. */
  readonly weightBytes: number;
  readonly kvBytesPerToken: number;
  readonly matrices: readonly MatrixWork[];
  readonly attention: readonly AttentionWork[];
  /** Buffers of a pass: bytes a row, and bytes an output row. */
  readonly bufferPerRow: number;
  readonly bufferPerOutput: number;
  /** What its steps want of a GPU beside that. */
  readonly gpuWorks: readonly GpuWork[];
  /** Weights by number. */
  readonly parameters: number;
}

/** Programs never change, and are planned for again and again. */
const known = new WeakMap<Program, Sizes>();

export function sizesOf(program: Program): Sizes {
  const sizes = known.get(program) ?? computed(program);
  known.set(program, sizes);
  return sizes;
}

function computed(program: Program): Sizes {
  const matrices = matricesOf(program);
  const attention = attentionOf(program);
  const of = (test: (work: MatrixWork) => boolean, measure: (work: MatrixWork) => number) =>
    matrices.reduce((sum, work) => sum + (test(work) ? measure(work) : 0), 0);
  const moe = program.steps.filter(({ op, inputs }) => op === 'experts' && inputs[3]?.kind === 'weight');
  const routed = matrices.find(({ role }) => role === 'routed');
  const routedBytes = of(({ role }) => role === 'routed', ({ bytes }) => bytes); // biome-ignore format: one thought a line
  const experts = routed?.experts ?? 0;
  const kvBytes = KV_BYTES[program.kv.type];
  return {
    architecture: program.name,
    moeLayers: moe.length,
    experts,
    chosen: routed?.chosen ?? 0,
    contextLength: program.contextLength,
    expertBytes: experts === 0 ? 0 : routedBytes / (moe.length * experts),
    routedPerToken: of(({ role }) => role === 'routed', bytesPerToken),
    densePerToken: of(({ role }) => role !== 'routed', bytesPerToken),
    sharedPerToken: of(({ role }) => role === 'shared', bytesPerToken),
    routedBytes,
    weightBytes: program.weights.reduce((sum, weight) => sum + weightBytes(weight), 0),
    kvBytesPerToken: kvElementsPerToken(program.kv) * kvBytes,
    matrices,
    attention,
    bufferPerRow: bufferBytes(program, 1, 0),
    bufferPerOutput: bufferBytes(program, 0, 1),
    gpuWorks: gpuWorksOf(program),
    parameters: program.weights.reduce((sum, weight) => sum + elements(weight), 0),
  };
}

/** Bytes that a single token reads of these weights. */
export function bytesPerToken({ bytes, experts, chosen }: MatrixWork): number {
  return (bytes * chosen) / experts;
}

/** Weights that a single token is multiplied with; of a table none. */
export function weightsPerToken({ op, weights, experts, chosen }: MatrixWork): number {
  return op === 'embed' || op === 'other' ? 0 : (weights * chosen) / experts;
}

const SMALL = new Set([
  'rms-norm',
  'rope',
  'add',
  'glu',
  'router',
  'rank-experts',
  'kv-append',
  'mla-append',
  'gather-rows',
]);

/** A step without matrices. */
export function isSmall({ op }: Step): boolean {
  return SMALL.has(op);
}

/** Values that a step writes for a row. */
export function columnsWritten({ values }: Program, { outputs }: Step): number {
  return outputs.reduce((sum, id) => sum + values[id].columns, 0);
}

function matricesOf(program: Program): MatrixWork[] {
  const groups = new Map<string, MatrixWork>();
  for (const work of program.steps.flatMap((step) => matricesOfStep(program, step))) {
    const { op, role, format, experts, chosen } = work;
    const key = [op, role, format, experts, chosen].join();
    const { weights, bytes } = groups.get(key) ?? { weights: 0, bytes: 0 };
    groups.set(key, { ...work, weights: weights + work.weights, bytes: bytes + work.bytes });
  }
  return [...groups.values()];
}

/** The weights of one step, each by itself. */
export function matricesOfStep(program: Program, step: Step): MatrixWork[] {
  const choice = choiceOf(program, step);
  const role = roleOf(program, step);
  return step.inputs.flatMap((input, operand): MatrixWork[] => {
    if (input?.kind !== 'weight') return [];
    const weight = program.weights[input.weight];
    const { format } = weight;
    const sizes = { weights: elements(weight), bytes: weightBytes(weight) };
    return [{ op: opOf(step, operand, weight), role, format, ...choice, ...sizes }];
  });
}

/** Biases and norms are `other`: read, but multiplied with nothing that counts. */
function opOf({ op }: Step, operand: number, { shape }: Weight): MatrixWork['op'] {
  if (op === 'experts') return operand <= 5 ? 'experts' : 'other';
  if (op === 'linear') return operand === 1 ? 'linear' : 'other';
  if (op === 'mla' || op === 'embed') return op;
  return shape.length > 1 ? 'linear' : 'other';
}

function roleOf(program: Program, step: Step): Role {
  if (step.op === 'experts') return 'routed';
  if (step.op === 'embed') return 'embed';
  if (step.op === 'linear' && program.values[step.outputs[0]].rows === 'O') return 'head';
  return /shared_expert/.test(step.name) ? 'shared' : 'dense';
}

function choiceOf(program: Program, { op, inputs }: Step): { experts: number; chosen: number } {
  const rowsOf = (operand: number) => {
    const input = inputs[operand];
    return input?.kind === 'weight' ? program.weights[input.weight].shape[0] : 1;
  };
  const [, chosen] = inputs;
  if (op === 'experts' && chosen?.kind === 'value') return { experts: rowsOf(3), chosen: chosen.columns };
  return { experts: op === 'embed' ? rowsOf(0) : 1, chosen: 1 };
}

function attentionOf(program: Program): AttentionWork[] {
  const groups = new Map<string, AttentionWork>();
  for (const step of program.steps) {
    const work = attentionOfStep(program, step);
    if (work === undefined) continue;
    const { op, productsPerPair, expandedPerPair, weights, window } = work;
    const key = [op, productsPerPair, expandedPerPair, weights, window].join();
    const before = groups.get(key);
    groups.set(key, before === undefined ? work : joined(before, work));
  }
  return [...groups.values()];
}

/** Both together, where a layer of one costs what a layer of the other does. */
function joined(a: AttentionWork, b: AttentionWork): AttentionWork {
  return {
    ...a,
    layers: a.layers + b.layers,
    weights: a.weights + b.weights,
    kvBytesPerToken: a.kvBytesPerToken + b.kvBytesPerToken,
  };
}

/** Of a step that attends; undefined of others. */
export function attentionOfStep(program: Program, { op, inputs, attributes }: Step): AttentionWork | undefined {
  if (op !== 'attention' && op !== 'mla') return undefined;
  const of = (name: string) => Number(attributes[name] ?? 0);
  const heads = of('heads');
  const { streams } = program.kv.layers[of('cache')];
  const cached = streams.reduce((sum, stream) => sum + stream.heads * stream.width, 0);
  const up = inputs.slice(1).reduce((sum, input) => {
    return op === 'mla' && input?.kind === 'weight' ? sum + elements(program.weights[input.weight]) : sum;
  }, 0);
  const pair =
    op === 'mla'
      ? { productsPerPair: heads * (2 * of('latent') + of('rope')), expandedPerPair: heads * (of('nope') + of('rope') + of('value')) } // biome-ignore format: one thought a line
      : { productsPerPair: heads * (of('headSize') + of('valueSize')), expandedPerPair: heads * (of('headSize') + of('valueSize')) }; // biome-ignore format: one thought a line
  return {
    op,
    layers: 1,
    ...pair,
    weights: up,
    ...(of('window') > 0 && { window: of('window') }),
    kvBytesPerToken: cached * KV_BYTES[program.kv.type],
  };
}

function elements({ shape }: Weight): number {
  return shape.reduce((product, length) => product * length, 1);
}
