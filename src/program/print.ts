/**
 * A Program as stable text: a header, then one line a step. People read it in `tandem explain`; committed snapshots are
 * made of it, so nothing that varies from machine to machine is printed.
 *
 *     %12 [T,1536] = linear %9[0:512] model.layers.0.self_attn.q_a_proj.weight[q4_k 1536x2048] @cpu:q8_256
 */
import {
  type Attribute,
  type KvLayer,
  kvElementsPerToken,
  type Program,
  type Step,
  type StepExecution,
} from './program.ts';
import type { Operand } from './tensor.ts';

export function printProgram(program: Program): string {
  const { name, vocabSize, contextLength, values, weights, steps, kv, logits } = program;
  const lines = [
    `program ${name}: vocabulary ${vocabSize}, context ${contextLength}, ${steps.length} steps, ` +
      `${values.length} values, ${weights.length} weights, logits %${logits}`,
    `kv ${kv.type}, pages of ${kv.pageTokens} tokens, ${kvElementsPerToken(kv)} elements a token`,
    ...printLayers(kv.layers),
    '',
    ...steps.map((step) => printStep(program, step)),
  ];
  return `${lines.join('\n')}\n`;
}

/** `  layers 0-26: 1x576`; equal neighbours share a line. */
function printLayers(layers: readonly KvLayer[]): string[] {
  const texts = layers.map(({ streams }) => streams.map(({ heads, width }) => `${heads}x${width}`).join(' '));
  const lines: string[] = [];
  for (let first = 0, last = 0; first < texts.length; first = last + 1) {
    for (last = first; texts[last + 1] === texts[first]; ) last++;
    lines.push(`  ${first === last ? `layer ${first}` : `layers ${first}-${last}`}: ${texts[first]}`);
  }
  return lines;
}

/** One line. A step whose name is not that of its weight says it at the end. */
export function printStep(program: Program, step: Step): string {
  const outputs = step.outputs.map((id) => {
    const { type, rows, columns } = program.values[id];
    return `%${id} ${type === 'i32' ? 'i32' : ''}[${rows},${columns}]`;
  });
  const words = [
    outputs.length > 0 ? `${outputs.join(', ')} = ${step.op}` : step.op,
    ...step.inputs.map((operand) => printOperand(program, operand)),
    ...Object.entries(step.attributes).map(([key, attribute]) => `${key}=${printAttribute(attribute)}`),
  ];
  if (step.placement) {
    const { device, decode } = step.placement;
    words.push(`@${device}:${printExecution(step.placement)}`);
    if (decode) words.push(`decode:${printExecution(decode)}`);
  }
  const named = step.inputs.some(
    (operand) => operand?.kind === 'weight' && program.weights[operand.weight].name === `${step.name}.weight`,
  );
  if (!named) words.push(`; ${step.name}`);
  return words.join(' ');
}

/** `q8_256/q8_32 tiles=12 kernel=mine`. */
export function printExecution({ activation, middle, tiles, kernel }: StepExecution): string {
  const words = [middle ? `${activation}/${middle}` : activation];
  if (tiles !== undefined) words.push(`tiles=${tiles}`);
  if (kernel !== undefined) words.push(`kernel=${kernel}`);
  return words.join(' ');
}

function printOperand(program: Program, operand: Operand): string {
  if (operand === null) return '-';
  if (operand.kind === 'weight') {
    const { name, format, shape, rows, byColumns } = program.weights[operand.weight];
    const which = rows ? ` rows ${rows.start}${rows.step ? `+${rows.step}n` : '..'} of ${rows.of}` : '';
    return `${name}[${format} ${shape.join('x')}${which}${byColumns ? ' by columns' : ''}]`;
  }
  const whole = operand.start === 0 && operand.columns === program.values[operand.value].columns;
  return `%${operand.value}${whole ? '' : `[${operand.start}:${operand.start + operand.columns}]`}`;
}

/** Lists by length, ends and a checksum. */
function printAttribute(attribute: Attribute): string {
  if (typeof attribute === 'number') return printNumber(attribute);
  if (typeof attribute !== 'object') return String(attribute);
  if (attribute.length <= 4) return `[${attribute.map(printNumber).join(',')}]`;
  const ends = `${printNumber(attribute[0])}..${printNumber(attribute[attribute.length - 1])}`;
  return `[${attribute.length}:${ends}#${checksum(attribute)}]`;
}

/** Seven digits: enough to tell f32 apart, too few for the last bits in which machines' `pow` and `log` differ. */
function printNumber(value: number): string {
  return String(Number(value.toPrecision(7)));
}

/** FNV-1a over the printed numbers. */
function checksum(values: readonly number[]): string {
  let hash = 0x811c9dc5;
  for (const char of values.map(printNumber).join(',')) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}
