/**
 * Checks a Program against the rules of the language. The first violation is one PROGRAM_INVALID that names the step and
 * the rule. The op table is an argument: the language does not know the ops.
 */
import { quantFormat } from '../formats/quants/index.ts';
import { type Attribute, PAGE_TOKENS, type Program, type Step, type StepExecution } from './program.ts';
import {
  type AttributeRule,
  attributeOf,
  invalid,
  type OpRules,
  type OpTable,
  shapeContext,
  stepLabel,
} from './rules.ts';
import type { Operand, Weight } from './tensor.ts';
import { checkDevices } from './validate-devices.ts';

/** Returns the program, so that a builder can end with it. */
export function validateProgram(program: Program, ops: OpTable): Program {
  checkHeader(program);
  for (const weight of program.weights) checkWeight(weight);
  const names = new Set<string>();
  const written = new Set<number>();
  const appended = new Set<number>();
  for (const step of program.steps) {
    if (names.has(step.name)) throw invalid('step names are unique', `there are two steps ${step.name}`);
    names.add(step.name);
    const rules = ops.get(step.op);
    if (!rules) throw invalid(`ops are ${[...ops.keys()].join(', ')}`, stepLabel(step));
    checkAttributes(step, rules);
    checkPlacement(step);
    checkOperands(program, step, rules, written);
    checkCache(program, step, rules, appended);
    checkOutputs(program, step, rules, written);
  }
  checkDevices(program);
  for (const value of program.values)
    if (!written.has(value.id)) throw invalid('every value is written by a step', `nobody writes ${value.name}`);
  return program;
}

function checkHeader(program: Program): void {
  const { values, weights, kv, logits, vocabSize, contextLength } = program;
  if (!isSize(vocabSize) || !isSize(contextLength))
    throw invalid('vocabSize and contextLength are whole numbers above 0', `${vocabSize} and ${contextLength}`);
  values.forEach((value, index) => {
    if (value.id !== index) throw invalid('values are listed by id', `${value.name} has id ${value.id}, not ${index}`);
    if (!isSize(value.columns)) throw invalid('values have columns', `${value.name} has ${value.columns}`);
  });
  weights.forEach((weight, index) => {
    if (weight.id !== index)
      throw invalid('weights are listed by id', `${weight.name} has id ${weight.id}, not ${index}`);
  });
  if (kv.pageTokens !== PAGE_TOKENS) throw invalid(`a page holds ${PAGE_TOKENS} tokens`, `${kv.pageTokens}`);
  for (const stream of kv.layers.flatMap((layer) => layer.streams))
    if (!isSize(stream.heads) || !isSize(stream.width))
      throw invalid('streams of the cache have heads and a width', `${stream.heads} and ${stream.width}`);
  const result = values[logits];
  if (result?.type !== 'f32' || result.rows !== 'O' || result.columns !== vocabSize)
    throw invalid(
      'the logits are an f32 value [O, vocabSize]',
      result
        ? `${result.name} is ${result.type} [${result.rows}, ${result.columns}], vocabSize is ${vocabSize}`
        : `value ${logits} does not exist`,
    );
}

/** A whole number above 0 that fits u32. */
function isSize(value: number): boolean {
  return Number.isInteger(value) && value > 0 && value <= 0xffffffff;
}

function checkWeight({ name, shape, format, parts, scales, scaleType, rows, byColumns }: Weight): void {
  const { blockSize, scaleBlock } = quantFormat(format);
  if (shape.length < 1 || shape.length > 3 || !shape.every(isSize))
    throw invalid('a weight has 1 to 3 dimensions, each above 0', `${name} is [${shape.join(', ')}]`);
  if (shape[shape.length - 1] % blockSize !== 0)
    throw invalid(
      `rows of ${format} are a multiple of ${blockSize} weights`,
      `${name} has rows of ${shape[shape.length - 1]}`,
    );
  if (parts.length !== 1 && !(shape.length === 3 && parts.length === shape[0]))
    throw invalid(
      'a weight is one tensor, or (3-D) one for each of its matrices',
      `${name} [${shape.join(', ')}] has ${parts.length} parts`,
    );
  if (rows && (shape.length !== 3 || parts.length !== 1 || !fits(rows, shape) || !wholeScales(rows, scaleBlock?.rows)))
    throw invalid(
      'only matrices in one tensor, from the first of the rows that share a scale, may be some rows of stored ones',
      `${name} [${shape.join(', ')}] is rows from ${rows.start} in steps of ${rows.step ?? 1} of ${rows.of}`,
    );
  if (byColumns && (shape.length === 1 || blockSize !== 1 || scaleBlock))
    throw invalid('only matrices of single numbers may be stored column by column', `${name} is ${format}`);
  if (scaleType && !(scaleBlock?.type === 'f32' && scaleType === 'bf16'))
    throw invalid("scales are of their format's type, or bf16 for f32", `${name} ${format} has ${scaleType} scales`);
  const wanted = scaleBlock ? parts.length : 0;
  if ((scales?.length ?? 0) !== wanted)
    throw invalid(
      scaleBlock ? `${format} has a scale tensor for each part` : `${format} has no scale tensors`,
      `${name} has ${scales?.length ?? 0} of them and ${parts.length} parts`,
    );
}

function fits({ start, of, step = 1 }: NonNullable<Weight['rows']>, shape: readonly number[]): boolean {
  return [of, step].every(isSize) && Number.isInteger(start) && start >= 0 && start + (shape[1] - 1) * step < of;
}

/** Rows that share scales with `height` - 1 others begin where such a group does. */
function wholeScales({ start, step = 1 }: NonNullable<Weight['rows']>, height = 1): boolean {
  return height === 1 || (step === 1 && start % height === 0);
}

function checkAttributes(step: Step, rules: OpRules): void {
  for (const name of Object.keys(step.attributes))
    if (!Object.hasOwn(rules.attributes, name))
      throw invalid(
        `the attributes of ${step.op} are ${Object.keys(rules.attributes).join(', ') || 'none'}`,
        `${stepLabel(step)} has "${name}"`,
      );
  for (const [name, rule] of Object.entries(rules.attributes)) {
    const attribute = attributeOf(step, rules, name);
    if (!hasType(attribute, rule.type))
      throw invalid(`${step.op}.${name} is a ${rule.type}`, `${stepLabel(step)} has ${JSON.stringify(attribute)}`);
  }
}

function checkPlacement(step: Step): void {
  for (const { tiles } of [step.placement ?? {}, step.placement?.decode ?? {}] as readonly Partial<StepExecution>[])
    if (tiles !== undefined && !isSize(tiles))
      throw invalid('the rows from which tiles serve are a whole number above 0', `${stepLabel(step)} has ${tiles}`);
}

function hasType(attribute: Attribute, type: AttributeRule['type']): boolean {
  if (type === 'numbers') return Array.isArray(attribute) && attribute.every((n) => Number.isFinite(n));
  return type === 'number' ? Number.isFinite(attribute) : typeof attribute === type;
}

function checkOperands(program: Program, step: Step, rules: OpRules, written: ReadonlySet<number>): void {
  if (step.inputs.length > rules.inputs.length)
    throw invalid(`${step.op} has ${rules.inputs.length} inputs`, `${stepLabel(step)} has ${step.inputs.length}`);
  rules.inputs.forEach((rule, index) => {
    const operand = step.inputs[index] ?? null;
    if (operand === null) {
      if (!rule.optional) throw invalid(`${step.op} needs its input ${rule.name}`, `${stepLabel(step)} has none`);
      return;
    }
    if (operand.kind !== rule.kind)
      throw invalid(`${rule.name} of ${step.op} is a ${rule.kind}`, `${stepLabel(step)} has a ${operand.kind}`);
    checkRange(program, step, operand, written);
  });
}

function checkRange(program: Program, step: Step, operand: NonNullable<Operand>, written: ReadonlySet<number>): void {
  if (operand.kind === 'weight') {
    if (!program.weights[operand.weight])
      throw invalid('weights exist', `${stepLabel(step)} reads weight ${operand.weight}`);
    return;
  }
  const value = program.values[operand.value];
  if (!value) throw invalid('values exist', `${stepLabel(step)} reads value ${operand.value}`);
  if (!written.has(operand.value))
    throw invalid('a value is written before it is read', `${stepLabel(step)} reads ${value.name}`);
  const { start, columns } = operand;
  if (!Number.isInteger(start) || start < 0 || !isSize(columns) || start + columns > value.columns)
    throw invalid(
      'a view lies inside its value',
      `${stepLabel(step)} reads columns [${start}, ${start + columns}) of the ${value.columns} of ${value.name}`,
    );
}

/** Steps with a `cache`: those without outputs append, once a layer; the others read what was appended. */
function checkCache(program: Program, step: Step, rules: OpRules, appended: Set<number>): void {
  if (!Object.hasOwn(rules.attributes, 'cache')) return;
  const cache = Number(attributeOf(step, rules, 'cache'));
  if (!program.kv.layers[cache])
    throw invalid(
      `cache is an index of the ${program.kv.layers.length} kv layers of the program`,
      `${stepLabel(step)} says ${cache}`,
    );
  if (step.outputs.length > 0) {
    if (!appended.has(cache))
      throw invalid('a kv layer is appended to before it is read', `${stepLabel(step)} reads layer ${cache}`);
  } else if (appended.has(cache))
    throw invalid('a kv layer is appended to once', `${stepLabel(step)} appends to layer ${cache} again`);
  else appended.add(cache);
}

function checkOutputs(program: Program, step: Step, rules: OpRules, written: Set<number>): void {
  const shapes = rules.shape(shapeContext(program, step, rules));
  if (shapes.length !== step.outputs.length)
    throw invalid(`${step.op} has ${shapes.length} outputs`, `${stepLabel(step)} has ${step.outputs.length}`);
  shapes.forEach((shape, index) => {
    const id = step.outputs[index];
    const value = program.values[id];
    if (!value) throw invalid('values exist', `${stepLabel(step)} writes value ${id}`);
    if (written.has(id)) throw invalid('a value is written once', `${stepLabel(step)} writes ${value.name} again`);
    if (value.type !== shape.type || value.rows !== shape.rows || value.columns !== shape.columns)
      throw invalid(
        `this ${step.op} gives ${shape.type} [${shape.rows}, ${shape.columns}]`,
        `${stepLabel(step)} writes ${value.name}, ${value.type} [${value.rows}, ${value.columns}]`,
      );
    written.add(id);
  });
}
