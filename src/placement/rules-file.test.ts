import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { TandemError } from '../errors.ts';
import { registerKernel } from '../ops/kernel.ts';
import type { Rule } from './rule.ts';
import { parseRules, parseRulesFile } from './rules-file.ts';

const forget: (() => void)[] = [];
afterEach(() => {
  for (const each of forget.splice(0)) each();
});

function message(text: string): string {
  try {
    parseRulesFile(text, 'my.yaml');
  } catch (error) {
    expect(error).toMatchObject({ code: 'FORMAT_INVALID' });
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

test('a file becomes rules, each knowing its line', () => {
  const rules = parseRulesFile(
    `# all of it
- match: { name: 'self_attn\\.', op: [linear, rope], layers: [0, "3-60", last], format: [q4_k, q6_k] }
  place: { device: cuda:0, kernel: native, form: file, tiles: 16, activation: auto }

- match:
    op: experts
    layers: "58-last"
  place: { device: "cuda:{layer * gpus / layers}" }
  prefill: { tiles: 8 }
  decode: { tiles: off, activation: f32 }
- place: { device: cpu }
`,
    'my.yaml',
  );
  expect(rules).toEqual([
    {
      match: {
        name: /self_attn\./u,
        op: ['linear', 'rope'],
        layers: [
          [0, 0],
          [3, 60],
          [-1, -1],
        ],
        format: ['q4_k', 'q6_k'],
      },
      place: { device: 'cuda:0', kernel: 'native', form: 'file', tiles: 16, activation: 'auto' },
      origin: 'my.yaml:2',
    },
    {
      match: { op: ['experts'], layers: [[58, -1]] },
      place: { device: 'cuda:{layer * gpus / layers}' },
      prefill: { tiles: 8 },
      decode: { tiles: 'off', activation: 'f32' },
      origin: 'my.yaml:5',
    },
    { match: {}, place: { device: 'cpu' }, origin: 'my.yaml:11' },
  ] satisfies Rule[]);
});

describe('what is wrong is told with line and column, and what was likely meant', () => {
  test.each([
    [
      '- match: { opp: linear }\n  place: { device: cpu }',
      'match has name, op, layers, format; my.yaml:1:12: "opp", did you mean op?',
    ],
    [
      '- place:\n    divice: cpu',
      'place has device, kernel, form, tiles, activation; my.yaml:2:5: "divice", did you mean device?',
    ],
    [
      '- macth: { op: linear }\n  place: { device: cpu }',
      'a rule has match, place, prefill, decode; my.yaml:1:3: "macth", did you mean match?',
    ],
    ['- match: { op: [linear, expert] }\n  place: { tiles: off }', 'my.yaml:1:25: "expert", did you mean experts?'],
    ['- match: { format: q4_km }\n  place: { tiles: off }', 'my.yaml:1:20: "q4_km", did you mean q4_k?'],
    [
      '- place: { kernel: referense }',
      'a kernel is one of native, reference; my.yaml:1:20: "referense", did you mean reference?',
    ],
    [
      '- place: { activation: q8 }',
      'a rounding of activations is one of auto, f32, q8_32, q8_256, bf16; my.yaml:1:24: "q8"',
    ],
    ['- place: { tiles: 0 }', 'tiles is a number of rows above 0, off or auto; my.yaml:1:19: "0"'],
    ['- place: { tiles: [8] }', 'tiles is a number of rows above 0, off or auto; my.yaml:1:19: [8]'],
    ["- match: { name: '(' }\n  place: { tiles: off }", 'name is a regular expression; my.yaml:1:18: '],
    ['- match: { name: 5 }\n  place: { tiles: off }', 'my.yaml:1:18: "5"'],
    ['- match: { layers: "9-5" }\n  place: { tiles: off }', 'my.yaml:1:20: "9-5" is empty'],
    [
      '- match: { layers: [1, x] }\n  place: { tiles: off }',
      'layers are numbers, ranges "3-60", or last; my.yaml:1:24: "x"',
    ],
    ['- match: { layers: "1-2-3" }\n  place: { tiles: off }', 'my.yaml:1:20: "1-2-3"'],
    ['- match: { layers: 1.5 }\n  place: { tiles: off }', 'my.yaml:1:20: "1.5"'],
    ['- match: { op: [] }\n  place: { tiles: off }', 'a list names at least one; my.yaml:1:16: it is empty'],
    ['- place: { device: gpu:0 }', 'a device is cpu, cuda:0, cuda:1 …; my.yaml:1:20: "gpu:0"'],
    ['- place: { device: cuda }', 'my.yaml:1:20: "cuda", did you mean cuda:0?'],
    ['- place: { device: cdua:1 }', 'my.yaml:1:20: "cdua:1", did you mean cuda:1?'],
    ['- place: { device: "cuda:{layr}" }', 'my.yaml:1:20: {layr} has "layr" where it cannot stand'],
    ['- place: { device: "cuda:{layer *}" }', 'my.yaml:1:20: {layer *} ends too early'],
    ['- place: { device: "cuda:{layer" }', 'my.yaml:1:20: "cuda:{layer" has a bracket { or } without the other'],
    ['- place: { device: "cuda:{process.exit()}" }', '{process.exit()} has "process" where it cannot stand'],
    ['- match: linear\n  place: { tiles: off }', 'match is a mapping of keys to values; my.yaml:1:10: "linear"'],
    ['- device: cpu\n- place: { tiles: off }', 'my.yaml:1:3: "device"'],
    ['- just words', 'a rule is a mapping of keys to values; my.yaml:1:3: "just words"'],
    ['- match: { op: linear }', 'a rule says something: place, prefill or decode; my.yaml:1:3: this one does not'],
    ['- place: {}\n  decode: {}', 'my.yaml:1:3: this one does not'],
    ['rules: []', 'a rule file is a list of rules; my.yaml:1:1: it is none'],
    ['', 'a rule file is a list of rules; my.yaml:1:1: it is empty'],
    ['- place: { device: cpu\n- x', 'a rule file is YAML; my.yaml:2:1: '],
    ['- place: { device: cpu, device: cpu }', 'a rule file is YAML; my.yaml:1:25: Map keys must be unique'],
  ])('%j', (text, expected) => {
    expect(message(text)).toContain(expected);
    expect(message(text)).toMatch(/^\[placement\] /);
  });

  test('several at once, the first with its rule', () => {
    const text = '- place: { divice: cpu }\n- place: { tiles: x }\n- match: { op: lin }\n  place: { tiles: off }\n';
    expect(message(text)).toMatch(/my\.yaml:1:12.*my\.yaml:2:19: "x" \(tiles is .*\); my\.yaml:3:16: "lin"/);
  });

  test('aliases without end', () => {
    const bomb = ['a: &a [x, x, x, x, x, x, x, x, x]'];
    for (const [one, other] of ['ab', 'bc', 'cd', 'de', 'ef'])
      bomb.push(`${other}: &${other} [${`*${one}, `.repeat(9)}]`);
    expect(message(bomb.join('\n'))).toMatch(/aliases of a rule file end; my\.yaml:2:8: /);
    expect(message('&a\n- *a')).toMatch(/aliases of a rule file end; my\.yaml:2:3: what it stands for holds itself/);
    expect(message('- place: &p\n    device: *p')).toMatch(/my\.yaml:2:13: what it stands for holds itself/);
  });

  test('an alias that ends stands for what it names', () => {
    const rules = parseRulesFile(
      '- match: { op: linear }\n  place: &gpu { device: cuda:0 }\n- place: *gpu\n',
      'my.yaml',
    );
    expect(rules.map(({ place }) => place)).toEqual([{ device: 'cuda:0' }, { device: 'cuda:0' }]);
  });

  test('a second document, and none', () => {
    expect(message('- place: { tiles: off }\n---\n- place: { tiles: off }\n')).toMatch(
      /a rule file is one YAML document; my\.yaml:2:1: a second one begins here; leave out the line ---/,
    );
    expect(message('# nothing\n')).toMatch(/a rule file is a list of rules; my\.yaml:\d:1: it is empty/);
    expect(parseRulesFile('---\n- place: { tiles: off }\n', 'my.yaml')).toHaveLength(1);
  });

  test('an expression of no end', () => {
    const deep = `cuda:{${'('.repeat(20_000)}1${')'.repeat(20_000)}}`;
    expect(message(`- place: { device: "${deep}" }`)).toMatch(/a device has at most 200 characters; my\.yaml:1:20: it has 40008/); // biome-ignore format: one line
  });

  test('keys that are lists are told by the place, and by nobody else', () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    expect(message('- ? [a, b]\n  : 1\n')).toMatch(/my\.yaml:1:/);
    expect(warned).not.toHaveBeenCalled();
    warned.mockRestore();
  });
});

test('a file of KTransformers says where to read on', () => {
  const text = `- match:
    name: "^model\\\\.layers\\\\.(?!.*self_attn).*$"
    class: torch.nn.Linear
  replace:
    class: ktransformers.operators.linear.KTransformersLinear
    kwargs:
      generate_device: "cuda"
`;
  expect(message(text)).toMatch(/my\.yaml is a KTransformers optimize rule file .*docs\/guide\/rules\.md has a table/);
});

test('registered kernels are known names', () => {
  expect(() => parseRulesFile('- place: { kernel: mine }', 'my.yaml')).toThrow('a kernel is one of native, reference;');
  forget.push(registerKernel({ name: 'mine', op: 'glu', run() {} }));
  expect(parseRulesFile('- place: { kernel: mine }', 'my.yaml')[0].place).toEqual({ kernel: 'mine' });
});

describe('lists that programs write', () => {
  test('are read as files are, with paths instead of lines', () => {
    const [rule] = parseRules([{ match: { op: 'experts', layers: [[3, 60]] }, place: { device: 'cpu' } }]);
    expect(rule).toEqual({
      match: { op: ['experts'], layers: [[3, 60]] },
      place: { device: 'cpu' },
      origin: 'rules[0]',
    });
    expect(() =>
      parseRules([{ place: { device: 'cpu' } }, { match: { op: ['add', 'linaer'] }, place: { tiles: 8 } }]),
    ).toThrow('rules[1].match.op[1]: "linaer", did you mean linear?');
    expect(() => parseRules([null as never])).toThrow('rules[0]: ');
    expect(() => parseRules('x' as never)).toThrow(expect.objectContaining({ code: 'REQUEST_INVALID' }));
  });

  test('rules that were read once are read again as they are', () => {
    const rules = parseRulesFile('- match: { name: x, layers: last }\n  place: { tiles: off }', 'my.yaml');
    expect(parseRules(rules)).toEqual(rules);
  });
});

describe('whatever is given, the answer is rules or one error of this room', () => {
  const whole = `- match: { name: 'a.b', op: [linear, rope], layers: [0, "3-60", last], format: q4_k }
  place: { device: "cuda:{layer * gpus / layers}", tiles: 16 }
  decode: { tiles: off }
- place: &here { device: cpu }
- place: *here
`;
  const outcome = (read: () => unknown) => {
    try {
      return Array.isArray(read()) ? 'rules' : 'something else';
    } catch (error) {
      return error instanceof TandemError ? `[${error.room}] ${error.code}` : String(error);
    }
  };
  const ENDS = ['rules', '[placement] FORMAT_INVALID', '[placement] REQUEST_INVALID'];

  test('damaged files', () => {
    expect(parseRulesFile(whole, 'x.yaml')).toHaveLength(3);
    const edit = fc.tuple(fc.nat(whole.length), fc.nat(4), fc.string({ maxLength: 4, unit: 'binary' }));
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        let text = whole;
        for (const [at, gone, put] of edits) text = text.slice(0, at) + put + text.slice(at + gone);
        expect(ENDS).toContain(outcome(() => parseRulesFile(text, 'x.yaml')));
      }),
      { numRuns: 500 },
    );
  });

  test('any data', () => {
    const keys = ['match', 'place', 'prefill', 'decode', 'name', 'op', 'layers', 'format', 'device', 'tiles', 'kernel'];
    const leaf = fc.oneof(
      fc.constantFrom('linear', 'cpu', 'q4_k', 'off', '3-60', 'last', '{layer}', '(', -1, 0, 7, null, true),
      fc.string(),
      fc.double(),
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        leaf,
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...keys), tie('tree'), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(fc.array(tree, { maxLength: 3 }), (value) => {
        expect(ENDS).toContain(outcome(() => parseRules(value as never)));
      }),
      { numRuns: 1000 },
    );
  });
});
