/** What rules do to a Program: which one decides, what it decides, and what cannot be. */
import { afterEach, describe, expect, test } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { OPS } from '../ops/index.ts';
import { registerKernel } from '../ops/kernel.ts';
import { planBuffers } from '../program/buffers.ts';
import { encodeProgram } from '../program/encode.ts';
import { printStep } from '../program/print.ts';
import { executionOf, type Program } from '../program/program.ts';
import { validateProgram } from '../program/validate.ts';
import { ExpressionError, parseTemplate } from './expression.ts';
import { lower, type Machine } from './lower.ts';
import { ruleWarnings } from './match.ts';
import { executionsOf, lowerBoth, lowerPhases } from './phases.ts';
import { parseRules, type RuleDescription } from './rules-file.ts';
import { tileRule } from './tiles.ts';

const { program } = tinyProgram({
  seed: 1,
  format: 'q8_0',
  layers: [
    ['gqa', 'dense'],
    ['mla', 'experts'],
    ['gqa', 'experts'],
  ],
});
const CPU: Machine = { device: 'cpu', tiles: tileRule('amx'), hasTiles: true };
const GPUS: Machine = { ...CPU, devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) };

const forget: (() => void)[] = [];
afterEach(() => {
  for (const each of forget.splice(0)) each();
});

function placed(rules: readonly RuleDescription[], machine = CPU, options = {}): Program {
  return lower(program, machine, { rules: parseRules(rules, 'r'), ...options });
}
function of(from: Program, name: string) {
  return from.steps.find((step) => step.name === name)?.placement;
}

describe('matching', () => {
  test('the first rule decides alone, what it leaves open the defaults decide', () => {
    const all = placed([
      { match: { name: /^layers\.1\.experts$/ }, place: { tiles: 'off' } },
      { match: { op: ['experts', 'linear'] }, place: { activation: 'f32' } },
    ]);
    expect(of(all, 'layers.1.experts')).toEqual({
      device: 'cpu',
      activation: 'q8_32',
      middle: 'q8_32',
      origin: 'r[0]',
    });
    expect(of(all, 'layers.2.experts')).toEqual({ device: 'cpu', activation: 'f32', middle: 'f32', origin: 'r[1]' });
    expect(of(all, 'embed')).toEqual({ device: 'cpu', activation: 'f32' });
  });

  test.each<[RuleDescription['match'], string[]]>([
    [{ op: 'experts' }, ['layers.1.experts', 'layers.2.experts']],
    [{ op: 'experts', layers: 'last' }, ['layers.2.experts']],
    [{ op: ['experts', 'mla'], layers: '1-last' }, ['layers.1.mla', 'layers.1.experts', 'layers.2.experts']],
    [{ name: '^head$' }, ['head']],
    [{ name: '\\.1\\.experts' }, ['layers.1.experts']],
    [{ op: 'linear', format: 'f32' }, ['layers.1.router_in', 'layers.2.router_in']],
    [{ format: 'f32' }, ['layers.1.router_in', 'layers.2.router_in']], // matrices; norms are f32 everywhere
    [{ op: 'add', layers: [0, [2, 2]] }, ['layers.0.add_1', 'layers.0.add_2', 'layers.2.add_1', 'layers.2.add_2']],
    [{ op: 'rms-norm', layers: '0-last', name: 'q_norm' }, ['layers.0.q_norm', 'layers.2.q_norm']],
  ])('%j', (match, expected) => {
    const all = placed([{ match, place: { device: 'cpu' } }]);
    expect(all.steps.filter(({ placement }) => placement!.origin).map(({ name }) => name)).toEqual(expected);
  });

  test('patterns with the flag g match every step, not every other', () => {
    const all = placed([{ match: { name: /layers/g }, place: { device: 'cpu' } }]);
    expect(all.steps.filter(({ layer, placement }) => layer >= 0 && !placement!.origin)).toEqual([]);
  });

  test('rules that decide nothing are told', () => {
    const rules = parseRules(
      [
        { match: { name: 'mlp' }, place: { tiles: 'off' } },
        { match: { op: 'glu' }, place: { device: 'cpu' } },
        { match: { op: 'glu', layers: 0 }, place: { device: 'cpu' } },
        { match: { op: 'add', layers: '5-9' }, place: { device: 'cpu' } },
      ],
      'r',
    );
    expect(ruleWarnings(program, rules)).toEqual([
      'r[0]: this rule matches no step of tiny',
      'r[2]: this rule is never reached; what it matches, such as layers.0.glu, is decided by r[1]',
      'r[3]: this rule matches no step of tiny',
    ]);
  });
});

describe('placing', () => {
  test('layers are dealt out; what stands before them goes with the first, what comes after with the last', () => {
    const all = placed([{ place: { device: 'cuda:{layer * gpus / layers}' } }], GPUS);
    const devices = ['embed', 'layers.0.add_1', 'layers.1.add_1', 'layers.2.add_1', 'head'].map(
      (name) => of(all, name)!.device,
    );
    expect(devices).toEqual(['cuda:0', 'cuda:0', 'cuda:0', 'cuda:1', 'cuda:1']);
  });

  test('what appends to a cache goes where it is read, and says so', () => {
    const all = placed([{ match: { op: 'mla' }, place: { device: 'cuda:1' } }], GPUS);
    expect(of(all, 'layers.1.append')).toMatchObject({
      device: 'cuda:1',
      origin: 'its cache lies where layers.1.mla reads it',
    });
    expect(of(all, 'layers.0.append')!.device).toBe('cpu');
    validateProgram(all, OPS);
  });

  test('tiles: numbers, off, auto; never what chooses experts; a machine without says so', () => {
    const all = placed([{ place: { tiles: 5 } }]);
    for (const name of ['layers.1.experts', 'layers.0.q', 'layers.1.mla']) expect(of(all, name)!.tiles).toBe(5);
    for (const name of ['layers.1.router_in', 'layers.0.norm_1']) expect(of(all, name)!.tiles).toBeUndefined();
    expect(of(placed([{ place: { tiles: 'off' } }]), 'layers.1.mla')!.tiles).toBeUndefined();
    expect(of(placed([{ place: { tiles: 'auto' } }]), 'layers.1.experts')!.tiles).toBe(12);
    const plain = placed([{ place: { tiles: 5 } }], { device: 'cpu' });
    expect(of(plain, 'layers.1.experts')).toMatchObject({ origin: 'r[0] (no tiles on this machine)' });
    expect(of(plain, 'layers.1.experts')!.tiles).toBeUndefined();
    expect(of(plain, 'layers.0.attention')!.tiles).toBe(5);
  });

  test('a rounding that a rule asks for keeps its tiles off only where it is none', () => {
    const [rounded, plain] = (['q8_32', 'f32'] as const).map((activation) =>
      of(placed([{ match: { op: 'linear' }, place: { activation } }]), 'layers.0.q'),
    );
    expect(rounded).toMatchObject({ activation: 'q8_32', tiles: 12 });
    expect(plain).toEqual({ device: 'cpu', activation: 'f32', origin: 'r[0]' });
  });

  test('kernels', () => {
    forget.push(registerKernel({ name: 'my-glu', op: 'glu', run() {} }));
    const all = placed([
      { match: { op: 'glu' }, place: { kernel: 'my-glu' } },
      { match: { op: 'add' }, place: { kernel: 'reference' } },
      { match: { op: 'linear' }, place: { kernel: 'native' } },
    ]);
    expect(of(all, 'layers.0.glu')!.kernel).toBe('my-glu');
    expect(of(all, 'layers.0.add_1')!.kernel).toBe('reference');
    expect(of(all, 'head')!.kernel).toBeUndefined();
    const step = all.steps.find(({ op }) => op === 'glu')!;
    expect(printStep(all, step)).toMatch(/ @cpu:f32 kernel=my-glu ; layers\.0\.glu$/);
  });

  test.each<[string, RuleDescription, Machine, object, string]>([
    [
      'a device that is not there',
      { match: { op: 'experts' }, place: { device: 'cuda:1' } },
      { ...CPU, devices: [{ name: 'cpu' }, { name: 'cuda:0' }] },
      {},
      '[placement] a step is placed on a device of this machine: cpu, cuda:0; r[0] places layers.1.experts (experts) on cuda:1; change the rule',
    ],
    [
      'an expression that leads nowhere',
      { place: { device: 'cuda:{layer / (gpus - 2)}' } },
      GPUS,
      {},
      'r[0] places embed (embed) on cuda:NaN (cuda:{layer / (gpus - 2)}), a division by zero',
    ],
    [
      'a device of a GPU here',
      { place: { device: 'cuda:0' } },
      CPU,
      {},
      'a device of this machine: cpu; r[0] places embed',
    ],
    [
      'blocks that do not divide',
      { match: { op: 'experts' }, place: { activation: 'q8_256' } },
      CPU,
      {},
      'q8_256 rounds blocks of 256 columns; r[0] asks it of layers.1.experts (experts), and layers.1.experts.gate has 64',
    ],
    [
      'tiles in exact mode',
      { match: { op: 'experts' }, place: { tiles: 8 } },
      CPU,
      { exact: true },
      'exact mode has no tiles; r[0] asks for tiles from 8 rows on, for layers.1.experts (experts)',
    ],
    [
      'a kernel for the drawing of tokens',
      { match: { op: 'sample' }, place: { kernel: 'reference' } },
      CPU,
      {},
      'tokens are drawn by the backend itself; r[0] asks it to compute sample (sample)',
    ],
  ])('%s is impossible', (_, rule, machine, options, expected) => {
    expect(() => placed([rule], machine, options)).toThrow(expect.objectContaining({ code: 'PLACEMENT_IMPOSSIBLE' }));
    expect(() => placed([rule], machine, options)).toThrow(expected);
  });

  test('a kernel of another op, and one that was forgotten', () => {
    const unregister = registerKernel({ name: 'my-glu', op: 'glu', run() {} });
    const rules = parseRules([{ match: { layers: 0 }, place: { kernel: 'my-glu' } }]);
    expect(() => lower(program, CPU, { rules })).toThrow(
      'the kernel my-glu computes glu; rules[0] asks it to compute layers.0.norm_1 (rms-norm); narrow the rule with match: { op: glu }',
    );
    unregister();
    expect(() => lower(program, CPU, { rules })).toThrow('rules[0] asks for my-glu; registerKernel() before');
  });
});

describe('phases', () => {
  const rule = { match: { op: ['linear', 'experts'] }, place: { tiles: 12 }, decode: { tiles: 'off' } } as const;

  test('one Program serves both where only the computing differs', () => {
    const both = lowerBoth(program, CPU, { rules: parseRules([rule], 'r') });
    const step = both.steps.find(({ name }) => name === 'layers.1.experts')!;
    expect(executionOf(step, 'prefill')!.tiles).toBe(12);
    expect(executionOf(step, 'decode')!.tiles).toBeUndefined();
    expect(of(both, 'layers.1.router_in')!.decode).toBeUndefined();
    expect(printStep(both, step)).toMatch(/@cpu:q8_32\/q8_32 tiles=12 decode:q8_32\/q8_32 ; layers\.1\.experts$/);
    validateProgram(both, OPS);
  });

  test('nothing is said twice where both are the same', () => {
    const same = lowerBoth(program, CPU, {
      rules: parseRules([{ place: { tiles: 'off' }, decode: { tiles: 'off' } }]),
    });
    expect(same.steps.every(({ placement }) => placement!.decode === undefined)).toBe(true);
  });

  test('two placements that compute alike are known by equal executions, whatever the reasons', () => {
    const executions = (...rules: RuleDescription[]) =>
      executionsOf(lowerBoth(program, CPU, { rules: parseRules(rules) }));
    expect(executions({ place: { device: 'cpu' } })).toEqual(executions());
    for (const other of [
      { ...rule },
      { place: { tiles: 'off' } },
      { match: { op: 'add' }, place: { kernel: 'reference' } },
    ])
      expect(executions(other as RuleDescription)).not.toEqual(executions());
  });

  test('nor are two alike on different devices, whoever placed them: users or the automatic placement', () => {
    const machine = { device: 'cpu' as const, devices: [{ name: 'cpu' }, { name: 'cuda:0' }] };
    const on = (device: string, origin: string) =>
      executionsOf(lowerBoth(program, machine, { rules: [{ match: { op: ['glu'] }, place: { device }, origin }] }));
    expect(on('cuda:0', 'automatic: room')).toEqual(on('cuda:0', 'my.yaml:1'));
    expect(on('cuda:0', 'automatic: room')).not.toEqual(on('cpu', 'automatic: room'));
  });

  test('the encoding names them only where they differ', () => {
    const bytes = (from: Program) => encodeProgram(from, planBuffers(from), () => ({ file: 0, offset: 0, bytes: 0 }));
    const version = (from: Program) => new DataView(bytes(from).buffer).getUint32(4, true);
    expect(version(lowerBoth(program, CPU))).toBe(2);
    expect(version(lowerBoth(program, CPU, { rules: parseRules([rule]) }))).toBe(3);
  });

  test('devices may differ, but not of a cache, and not on a backend with one Program', () => {
    const moving = parseRules([{ match: { op: 'experts' }, place: {}, prefill: { device: 'cuda:0' } }], 'r');
    const { prefill, decode } = lowerPhases(program, GPUS, { rules: moving });
    expect(of(prefill, 'layers.1.experts')!.device).toBe('cuda:0');
    expect(of(decode, 'layers.1.experts')!.device).toBe('cpu');
    for (const each of [prefill, decode]) validateProgram(each, OPS);
    expect(() => lowerBoth(program, GPUS, { rules: moving })).toThrow(
      'this backend runs a step on one device in all passes; layers.1.experts is on cuda:0 to read prompts, on cpu to generate',
    );
    const torn = parseRules([{ match: { op: 'mla' }, place: {}, decode: { device: 'cuda:0' } }]);
    expect(() => lowerPhases(program, GPUS, { rules: torn })).toThrow(
      'a cache lies on one device in all passes; layers.1.append is on cpu to read prompts, on cuda:0 to generate',
    );
  });
});

describe('expressions', () => {
  const at = { layer: 30, layers: 61, gpus: 2 };
  test.each([
    ['cuda:{layer * gpus / layers}', 'cuda:0'],
    ['cuda:{(layer + 1) * gpus / layers}', 'cuda:1'],
    ['{7 - 2 - 1}', '4'],
    ['{2 + 3 * 4}', '14'],
    ['{-layer % 7}', '-2'],
    ['{0 - 1 / 2}', '0'],
    ['a{1}b{2}c', 'a1b2c'],
    ['{12 / 5 * 5}', '12'],
    ['{((1.5))}', '1'],
  ])('%s = %s', (text, expected) => expect(parseTemplate(text)(at)).toBe(expected));

  test.each(['{}', '{1 +}', '{1 2}', '{layer.x}', '{a}', '{1', '1}', '{(1}', '{1)}', '{**}', '{"x"}'])(
    '%s is none',
    (text) => {
      expect(() => parseTemplate(text)).toThrow(ExpressionError);
    },
  );
});
