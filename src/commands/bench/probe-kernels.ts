/**
 * What the kernels of this machine reach: a Program with a layer for each weight format (two projections, a mixture of
 * experts), and one of each kind of attention, is run over 1 to some hundred rows; the backend's own clock tells what each
 * step took. A few seconds; the result is what predictions rest on.
 */
import { type NativeExecutable, nativeBackend } from '../../backend/native/backend.ts';
import { loadNative } from '../../backend/native/load.ts';
import type { FormatName } from '../../formats/dtype.ts';
import { Graph, view } from '../../models/graph.ts';
import { routedExperts, softmaxRouter } from '../../models/layers/moe.ts';
import { OPS } from '../../ops/index.ts';
import { lower } from '../../placement/lower.ts';
import { nativeMachine } from '../../placement/machine.ts';
import { distinctExperts } from '../../placement/physics.ts';
import type { KernelCosts } from '../../placement/profile.ts';
import { sizesOf } from '../../placement/sizes.ts';
import type { Batch } from '../../program/batch.ts';
import { PAGE_TOKENS, type Program, type Step } from '../../program/program.ts';
import { validateProgram } from '../../program/validate.ts';
import { ProbeWeights } from './probe-weights.ts';

/** Formats that most files are made of. */
export const USUAL_FORMATS: readonly FormatName[] = ['q4_k', 'q6_k', 'q8_0', 'bf16', 'mxfp4'];

const HIDDEN = 2048;
const WIDE = 4096;
const FFN = 768;
const CHOSEN = 8;
/** Experts of a layer: so many that caches do not hold them. */
const EXPERTS = { least: 32, most: 128 };
const VOCABULARY = 1024;
const HEADS = { heads: 16, kvHeads: 2, headSize: 128 };
const LATENT = { heads: 16, nope: 128, rope: 64, latent: 512, value: 128 };
/** Positions that are filled before single tokens are timed. */
const CONTEXT = 512;
const CHUNK = 256;
/** Rounds where there is time: of a share of the seconds for all passes, of which an idle machine needs a half or so. */
const ROUNDS = {
  single: { most: 16, least: 4, share: 0.15 },
  few: { most: 4, least: 2, share: 0.1 },
  chunk: { most: 3, least: 1, share: 0.25 },
} as const;
const SECONDS = 5;

export interface ProbeOptions {
  readonly formats: readonly FormatName[];
  readonly lastLevelCacheBytes: number;
  readonly threads?: number;
  readonly isa?: string;
}

/** NATIVE_UNAVAILABLE, FILE_IO. */
export async function probeKernels(options: ProbeOptions): Promise<KernelCosts> {
  const formats = options.formats.filter((format) => format !== 'f32');
  const experts = expertsFor(formats.length, options.lastLevelCacheBytes);
  const weights = new ProbeWeights((path) => formatOf(path, formats));
  const unplaced = build(new Graph(weights), formats, experts);
  const program = lower(validateProgram(unplaced, OPS), nativeMachine(options.isa));
  const checkpoint = await weights.written();
  try {
    await using executable = await nativeBackend().prepare(program, checkpoint, {
      pages: (CONTEXT + CHUNK) / PAGE_TOKENS,
      maxRows: CHUNK,
      maxOutputs: 1,
      threads: options.threads,
      isa: options.isa,
      load: 'pages',
    });
    return await measure(executable, experts);
  } finally {
    await checkpoint.close();
  }
}

/** Bytes of an expert in four bits. */
const EXPERT = 3 * HIDDEN * FFN * 0.56;

function expertsFor(formats: number, cacheBytes: number): number {
  const wanted = (3 * cacheBytes) / (EXPERT * Math.max(1, formats));
  const fitting = loadNative().machine().availableBytes / 4 / (4 * EXPERT * Math.max(1, formats));
  const count = Math.max(EXPERTS.least, Math.min(EXPERTS.most, wanted));
  return Math.max(2 * CHOSEN, 2 ** Math.floor(Math.log2(Math.min(count, fitting))));
}

/** Layer i is in format i, the one after them in f32; routers are f32 everywhere, embedding and head bf16. */
function formatOf(path: string, formats: readonly FormatName[]): FormatName {
  const layer = Number(/^model\.layers\.(\d+)\./.exec(path)?.[1] ?? -1);
  if (layer < 0) return 'bf16';
  return path.includes('.gate.') ? 'f32' : (formats[layer] ?? 'f32');
}

function build(graph: Graph, formats: readonly FormatName[], experts: number): Program {
  let x = graph.embed('model.embed_tokens', VOCABULARY, HIDDEN);
  [...formats, 'f32'].forEach((_, index) => {
    const layer = graph.layer(index);
    const dense = index === formats.length;
    const wide = layer.linear('up_proj', layer.rmsNorm('norm1', x, 1e-6), dense ? HIDDEN : WIDE);
    x = layer.add('residual', x, layer.linear('down_proj', wide, HIDDEN));
    if (dense) return;
    if (index === 0) {
      const { heads, kvHeads, headSize } = HEADS;
      const [k, v] = [0, 1].map((n) => view(wide, (heads + n * kvHeads) * headSize, kvHeads * headSize));
      const cache = layer.kvAppend('kv_append', k, v, kvHeads);
      const spec = { ...HEADS, cache, valueSize: headSize, scale: headSize ** -0.5 };
      x = layer.add('attended', x, layer.attention('attention', view(wide, 0, heads * headSize), spec));
      const { nope, rope, latent, value } = LATENT;
      const latents = layer.mlaAppend('mla_append', view(wide, 0, latent), view(wide, latent, rope));
      const up = layer.weight('kv_b_proj', [heads * (nope + value), latent]);
      const query = view(wide, 0, heads * (nope + rope));
      x = layer.add('latent', x, layer.mla('mla', query, [up], { ...LATENT, cache: latents, scale: 0.07 }));
    }
    const moe = { experts, ffn: FFN, router: softmaxRouter(CHOSEN, true) };
    x = layer.add('mixed', x, routedExperts(layer, 'mlp', layer.rmsNorm('norm2', x, 1e-6), moe));
  });
  const logits = graph.linear('lm_head', graph.gatherRows('outputs', x), VOCABULARY);
  return graph.finish('probe', logits, { kvType: 'bf16', contextLength: CONTEXT + CHUNK });
}

/** Seconds of each step in a pass, and of the pass beside them. */
interface Timed {
  readonly steps: readonly number[];
  readonly rest: number;
}

async function measure(executable: NativeExecutable, experts: number): Promise<KernelCosts> {
  const time = (first: number, rows: number, rounds: Rounds) => passes(executable, first, rows, rounds);
  const start = await time(0, CHUNK, ROUNDS.chunk);
  const end = await time(CONTEXT - CHUNK, CHUNK, { ...ROUNDS.chunk, most: ROUNDS.chunk.most - 1 });
  const single = await time(CONTEXT, 1, ROUNDS.single);
  const early = await time(PAGE_TOKENS, 1, ROUNDS.single);
  const rows = [1, 16, 64, CHUNK];
  const timed = [single, await time(CONTEXT, 16, ROUNDS.few), await time(CONTEXT, 64, ROUNDS.few), start];
  const { program } = executable;
  const { steps } = program;
  const small = steps.flatMap(({ op }, index) => (SMALL.has(op) ? [index] : []));
  const columns = small.reduce((sum, index) => sum + columnsOf(program, steps[index]), 0);
  const secondsOf = (pass: Timed, indices: readonly number[]) => indices.reduce((sum, i) => sum + pass.steps[i], 0);
  return {
    matrices: matrixCosts(program, rows, timed, experts),
    attention: attentionCosts(program, { early, single, start, end }),
    small: {
      step: secondsOf(single, small) / small.length,
      value: Math.max(0, secondsOf(start, small) - secondsOf(single, small)) / (columns * (CHUNK - 1)),
    },
    pass: Math.max(0, single.rest),
  };
}

const SMALL = new Set(['rms-norm', 'add', 'router']);

function columnsOf({ values }: Program, { outputs }: Step): number {
  return outputs.reduce((sum, id) => sum + values[id].columns, 0);
}

/** Seconds a weight, by op and format of the layers; the head is left out, it has one row. */
function matrixCosts(
  program: Program,
  rows: readonly number[],
  timed: readonly Timed[],
  experts: number,
): KernelCosts['matrices'] {
  const groups = new Map<string, { op: 'linear' | 'experts'; format: FormatName; weights: number; steps: number[] }>();
  program.steps.forEach((step, index) => {
    if ((step.op !== 'linear' && step.op !== 'experts') || step.layer < 0 || step.name.endsWith('.gate')) return;
    const matrices = step.inputs.flatMap((input) => (input?.kind === 'weight' ? [program.weights[input.weight]] : []));
    const key = `${step.op} ${matrices[0].format}`;
    const group = groups.get(key) ?? { op: step.op, format: matrices[0].format, weights: 0, steps: [] };
    group.weights += matrices.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0);
    group.steps.push(index);
    groups.set(key, group);
  });
  return [...groups.values()].map(({ op, format, weights, steps }) => ({
    op,
    format,
    costs: rows.map((count, i): [number, number] => {
      const distinct = op === 'experts' ? distinctExperts(experts, CHOSEN, count) : 1;
      const touched = op === 'experts' ? (weights * distinct) / experts : weights;
      const met = op === 'experts' ? (count * CHOSEN) / distinct : count;
      return [met, steps.reduce((sum, step) => sum + timed[i].steps[step], 0) / touched];
    }),
  }));
}

/**
 * Single tokens at two depths are a straight line: what a weight costs and what a product costs. For many rows both are
 * products of panels and cost the same.
 */
function attentionCosts(
  program: Program,
  { early, single, start, end }: Readonly<Record<'early' | 'single' | 'start' | 'end', Timed>>,
): KernelCosts['attention'] {
  return sizesOf(program).attention.map(({ op, weights, productsPerPair, expandedPerPair }) => {
    const index = program.steps.findIndex((step) => step.op === op);
    const latent = op === 'mla';
    const slope = Math.max(0, single.steps[index] - early.steps[index]) / (CONTEXT - PAGE_TOKENS);
    const base = Math.max(0, single.steps[index] - slope * CONTEXT);
    const products = weights * (CHUNK + CONTEXT) + expandedPerPair * (pairs(0) + pairs(CONTEXT - CHUNK));
    const product = (start.steps[index] + end.steps[index]) / products;
    return {
      op,
      decode: {
        product: (latent ? slope : single.steps[index] / CONTEXT) / productsPerPair,
        weight: latent ? base / weights : 0,
      },
      prefill: { product, weight: latent ? product : 0 },
    };
  });
}

/** Pairs of CHUNK rows from `first` on with what they see. */
function pairs(first: number): number {
  return CHUNK * (first + (CHUNK + 1) / 2);
}

interface Rounds {
  readonly most: number;
  readonly least: number;
  readonly share: number;
}

/** The same positions again and again, other tokens each time; lower quartiles, because neighbours only slow it down. */
async function passes(
  executable: NativeExecutable,
  first: number,
  rows: number,
  { most, least, share }: Rounds,
): Promise<Timed> {
  const steps: number[][] = [];
  const rests: number[] = [];
  const end = performance.now() + share * SECONDS * 1000;
  for (let round = 0; round < most && (round < least || performance.now() < end); round++) {
    const before = executable.timings();
    const started = performance.now();
    await executable.run(batchOf(first, rows, round * rows));
    const wall = (performance.now() - started) / 1000;
    const seconds = new Array<number>(executable.program.steps.length).fill(0);
    executable.timings().forEach(({ step, microseconds }, i) => {
      seconds[step] += (microseconds - before[i].microseconds) / 1e6;
    });
    steps.push(seconds);
    rests.push(wall - seconds.reduce((sum, value) => sum + value, 0));
  }
  const each = steps[0].map((_, step) => lowerQuartile(steps.map((round) => round[step])));
  return { steps: each, rest: Math.min(...rests) };
}

function lowerQuartile(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 2];
}

function batchOf(first: number, rows: number, seed: number): Batch {
  const pages = Int32Array.from({ length: Math.ceil((first + rows) / PAGE_TOKENS) }, (_, page) => page);
  return {
    tokens: Int32Array.from({ length: rows }, (_, row) => ((seed + row) * 37 + 11) % VOCABULARY),
    sequences: [{ slot: 0, firstRow: 0, rows, firstPosition: first, pages }],
    outputs: [{ row: rows - 1, sampling: null }],
    wantLogits: false,
  };
}
