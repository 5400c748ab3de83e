import { describe, expect, it } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { TandemError } from '../errors.ts';
import { OPS } from '../ops/index.ts';
import type { Program, Step } from './program.ts';
import type { Value, ValueOperand, Weight } from './tensor.ts';
import { validateProgram } from './validate.ts';

const { program } = tinyProgram({
  seed: 1,
  layers: [
    ['gqa', 'dense'],
    ['mla', 'experts'],
    ['mla-split', 'experts'],
  ],
});

function withStep(name: string, change: (step: Step) => Partial<Step>): Program {
  if (!program.steps.some((step) => step.name === name)) throw new Error(`no step ${name}`);
  return { ...program, steps: program.steps.map((s) => (s.name === name ? { ...s, ...change(s) } : s)) };
}
function withAttribute(name: string, change: Step['attributes']): Program {
  return withStep(name, (step) => ({ attributes: { ...step.attributes, ...change } }));
}
function withView(name: string, input: number, change: Partial<ValueOperand>): Program {
  return withStep(name, ({ inputs }) => ({
    inputs: inputs.map((operand, i) => (i === input ? { ...(operand as ValueOperand), ...change } : operand)),
  }));
}
function withValue(id: number, change: Partial<Value>): Program {
  return { ...program, values: program.values.map((value) => (value.id === id ? { ...value, ...change } : value)) };
}
function withWeight(name: string, change: Partial<Weight>): Program {
  if (!program.weights.some((weight) => weight.name === name)) throw new Error(`no weight ${name}`);
  return { ...program, weights: program.weights.map((w) => (w.name === name ? { ...w, ...change } : w)) };
}
function withCache(index: number, width: number): Program {
  const layers = program.kv.layers.map((layer, i) => (i === index ? { streams: [{ heads: 1, width }] } : layer));
  return { ...program, kv: { ...program.kv, layers } };
}
function moved(name: string, to: number): Program {
  const step = program.steps.find((each) => each.name === name)!;
  const rest = program.steps.filter((each) => each !== step);
  return { ...program, steps: [...rest.slice(0, to), step, ...rest.slice(to)] };
}
const last = program.steps.length;

const BROKEN: [rule: string, broken: Program, message: string][] = [
  ['unknown op', withStep('embed', () => ({ op: 'embde' })), 'step embed (embde)'],
  ['two steps of a name', withStep('norm', () => ({ name: 'head' })), 'there are two steps head'],
  ['an attribute too many', withAttribute('head', { bits: 4 }), 'step head (linear) has "bits"'],
  ['an attribute too few', withStep('norm', () => ({ attributes: { group: 64 } })), '"epsilon"'],
  ['an attribute of another type', withAttribute('norm', { epsilon: '1e-6' }), 'rms-norm.epsilon is a number'],
  ['an attribute that is NaN', withAttribute('norm', { epsilon: Number.NaN }), 'rms-norm.epsilon is a number'],
  ['a missing input', withStep('head', ({ inputs }) => ({ inputs: [inputs[0]] })), 'linear needs its input weight'],
  ['a null input', withStep('head', ({ inputs }) => ({ inputs: [null, inputs[1]] })), 'linear needs its input x'],
  ['too many inputs', withStep('sample', ({ inputs }) => ({ inputs: [...inputs, null] })), 'sample has 1 inputs'],
  ['a value for a weight', withStep('head', ({ inputs }) => ({ inputs: [inputs[0], inputs[0]] })), 'is a weight'],
  ['a weight past the end', withStep('embed', () => ({ inputs: [{ kind: 'weight', weight: 999 }] })), 'weight 999'],
  ['a value past the end', withView('head', 0, { value: 999 }), 'reads value 999'],
  ['a value read too early', moved('layers.0.norm_1', last - 1), 'a value is written before it is read'],
  ['a view past its value', withView('layers.1.k_rope', 0, { start: 33 }), 'reads columns [33, 41) of the 40'],
  ['a view before its value', withView('layers.1.k_rope', 0, { start: -1 }), 'a view lies inside its value'],
  [
    'a value written twice',
    withStep('norm', ({ inputs }) => ({ outputs: [(inputs[0] as ValueOperand).value] })),
    'again',
  ],
  [
    'tiles from no rows on',
    withStep('layers.1.experts', ({ placement }) => ({ placement: { ...placement!, tiles: 0 } })),
    'a whole number above 0',
  ],
  ['too few outputs', withStep('layers.1.router', ({ outputs }) => ({ outputs: outputs.slice(1) })), 'has 2 outputs'],
  ['an output of another width', withValue(0, { columns: 65 }), 'this embed gives f32 [T, 64]'],
  ['logits of another shape', { ...program, vocabSize: 41 }, 'the logits are an f32 value [O, vocabSize]'],
  ['logits that do not exist', { ...program, logits: 999 }, 'value 999 does not exist'],
  ['a value nobody writes', { ...program, steps: program.steps.slice(0, -1) }, 'nobody writes sample'],
  ['a cache layer that does not exist', withAttribute('layers.1.mla', { cache: 7 }), 'says 7'],
  [
    'a cache read before it is filled',
    moved('layers.1.append', last - 1),
    'a kv layer is appended to before it is read',
  ],
  ['a cache filled twice', withAttribute('layers.2.append', { cache: 1 }), 'appends to layer 1 again'],
  ['a cache of another shape', withCache(1, 41), 'one stream of one head, as wide as latent and ropeKey'],
  ['a page of another size', { ...program, kv: { ...program.kv, pageTokens: 32 } }, 'a page holds 64 tokens'],
  ['a weight of four dimensions', withWeight('head.weight', { shape: [1, 1, 40, 64] }), 'has 1 to 3 dimensions'],
  ['a weight that does not divide', withWeight('head.weight', { format: 'q4_k' }), 'a multiple of 256 weights'],
  ['parts that are not matrices', withWeight('layers.1.experts.up', { parts: ['a', 'b'] }), 'has 2 parts'],
  ['scales that are not wanted', withWeight('head.weight', { scales: ['s'] }), 'f32 has no scale tensors'],
  ['scales that are missing', withWeight('head.weight', { format: 'f8_e4m3' }), 'has a scale tensor for each part'],
  [
    'rows outside their matrix',
    withWeight('layers.1.experts.up', { rows: { start: 1, of: 8, step: 2 } }),
    'may be some rows of stored ones',
  ],
  ['a vector by columns', withWeight('-1.norm.weight', { byColumns: true }), 'may be stored column by column'],
  ['blocks by columns', withWeight('head.weight', { format: 'q8_0', byColumns: true }), 'stored column by column'],
  [
    'rows that begin amid a scale',
    withWeight('layers.1.experts.up', { format: 'f8_e4m3', scales: ['s'], rows: { start: 8, of: 200 } }),
    'from the first of the rows that share a scale',
  ],
  ['ids that are out of order', { ...program, values: [...program.values].reverse() }, 'values are listed by id'],
  ['a head that does not divide', withAttribute('layers.0.attention', { kvHeads: 3 }), 'multiple of its kvHeads'],
  ['rope outside its head', withAttribute('layers.1.q_rope', { offset: 20 }), 'inside a head'],
  ['rope of another style', withAttribute('layers.1.q_rope', { style: 'pair' }), 'pairs or halves'],
  ['frequencies that are too few', withAttribute('layers.1.q_rope', { frequencies: [1] }), 'width / 2 frequencies'],
  ['groups that do not divide', withAttribute('layers.1.router', { groups: 3 }), 'divide evenly into its groups'],
  ['more experts than are kept', withAttribute('layers.1.router', { topk: 3 }), 'at most the experts of the groups'],
  [
    'another activation',
    withAttribute('layers.1.experts', { activation: 'gelu' }),
    'activation of experts is one of silu, swiglu-clamped',
  ],
  [
    'kvB and kB at once',
    withStep('layers.2.mla', ({ inputs }) => ({ inputs: [inputs[0], inputs[2], inputs[2], inputs[3]] })),
    'the weight kvB, or the weights kB and vB',
  ],
];

describe('validate', () => {
  it('returns a program that keeps the rules', () => {
    expect(validateProgram(program, OPS)).toBe(program);
  });

  it.each(BROKEN)('%s', (_, broken, message) => {
    let error: unknown;
    try {
      validateProgram(broken, OPS);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(TandemError);
    expect(error).toMatchObject({ code: 'PROGRAM_INVALID', room: 'program' });
    expect((error as TandemError).message).toContain(message);
  });
});
