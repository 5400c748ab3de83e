/**
 * What an op must tell the language so that a Program can be checked: its operands, its attributes, its shape rule. The
 * ops themselves live one floor up; the language only knows this face.
 */
import { TandemError } from '../errors.ts';
import type { Attribute, KvLayout, Program, Step } from './program.ts';
import type { ElementType, Rows, Value, Weight } from './tensor.ts';

export interface OperandRule {
  readonly name: string;
  readonly kind: 'value' | 'weight';
  readonly optional?: boolean;
}

export interface AttributeRule {
  readonly type: 'number' | 'boolean' | 'string' | 'numbers';
  /** Present where the attribute may be absent. */
  readonly default?: Attribute;
}

/** What a shape rule sees: operands resolved to their descriptions (views already applied to `columns`). */
export interface ShapeContext {
  readonly step: Step;
  readonly program: Program;
  readonly kv: KvLayout;
  /** In operand order; null where absent. A view appears as a value with the view's columns. */
  readonly values: readonly (Value | null)[];
  readonly weights: readonly (Weight | null)[];
  number(name: string): number;
  text(name: string): string;
  /** Throws PROGRAM_INVALID naming the step unless `condition` holds. */
  expect(condition: boolean, rule: string): void;
}

export interface OutputShape {
  readonly type: ElementType;
  readonly rows: Rows;
  readonly columns: number;
}

export interface OpRules {
  readonly name: string;
  readonly inputs: readonly OperandRule[];
  readonly attributes: Readonly<Record<string, AttributeRule>>;
  shape(context: ShapeContext): OutputShape[];
}

/** All ops by name. */
export type OpTable = ReadonlyMap<string, OpRules>;

/** The one error of this room. */
export function invalid(rule: string, given: string, fix?: string): TandemError {
  return new TandemError('PROGRAM_INVALID', { room: 'program', rule, given, fix });
}

/** How a step is called in messages. */
export function stepLabel(step: Step): string {
  return `step ${step.name} (${step.op})`;
}

/** An attribute, or the op's default for it. PROGRAM_INVALID where there is neither. */
export function attributeOf(step: Step, rules: OpRules, name: string): Attribute {
  const attribute = step.attributes[name] ?? rules.attributes[name]?.default;
  if (attribute === undefined) throw invalid(`${step.op} has an attribute "${name}"`, `${stepLabel(step)} has none`);
  return attribute;
}

/** Resolves a step's operands for its shape rule. Ids must be in range (validateProgram checks before). */
export function shapeContext(program: Program, step: Step, rules: OpRules): ShapeContext {
  return {
    step,
    program,
    kv: program.kv,
    values: step.inputs.map((operand) =>
      operand?.kind === 'value' ? { ...program.values[operand.value], columns: operand.columns } : null,
    ),
    weights: step.inputs.map((operand) => (operand?.kind === 'weight' ? program.weights[operand.weight] : null)),
    number(name) {
      const attribute = attributeOf(step, rules, name);
      if (typeof attribute !== 'number') throw invalid(`${step.op}.${name} is a number`, stepLabel(step));
      return attribute;
    },
    text(name) {
      const attribute = attributeOf(step, rules, name);
      if (typeof attribute !== 'string') throw invalid(`${step.op}.${name} is a string`, stepLabel(step));
      return attribute;
    },
    expect(condition, rule) {
      if (!condition) throw invalid(rule, `${stepLabel(step)} ${describeInputs(program, step)}`);
    },
  };
}

/** `reads x [T,64], w [f32 32x64]`. */
function describeInputs(program: Program, step: Step): string {
  const parts = step.inputs.map((operand) => {
    if (operand === null) return 'nothing';
    if (operand.kind === 'weight') {
      const { name, format, shape } = program.weights[operand.weight];
      return `${name} [${format} ${shape.join('x')}]`;
    }
    const { name, type, rows } = program.values[operand.value];
    return `${name} ${type === 'i32' ? 'i32 ' : ''}[${rows},${operand.columns}]`;
  });
  const attributes = Object.entries(step.attributes)
    .filter(([, attribute]) => !Array.isArray(attribute))
    .map(([key, attribute]) => `${key}=${attribute}`);
  return `reads ${parts.join(', ')}${attributes.length > 0 ? ` with ${attributes.join(' ')}` : ''}`;
}
