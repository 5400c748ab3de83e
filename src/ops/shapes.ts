/** Words shared by the shape rules: required operands and common checks. */
import type { KvLayer } from '../program/program.ts';
import type { Value, Weight } from '../program/tensor.ts';
import type { OutputShape, ShapeContext } from './op.ts';

/** The float value at `operand`. */
export function floats(context: ShapeContext, operand: number, name: string): Value {
  const value = context.values[operand];
  context.expect(value?.type === 'f32', `${name} of ${context.step.op} is an f32 value`);
  return value!;
}

/** The integer value at `operand`. */
export function integers(context: ShapeContext, operand: number, name: string): Value {
  const value = context.values[operand];
  context.expect(value?.type === 'i32', `${name} of ${context.step.op} is an i32 value`);
  return value!;
}

/** The weight at `operand`, of so many dimensions. */
export function weight(context: ShapeContext, operand: number, name: string, dimensions: number): Weight {
  const found = context.weights[operand];
  context.expect(
    found?.shape.length === dimensions,
    `${name} of ${context.step.op} is a weight of ${dimensions} dimensions`,
  );
  return found!;
}

/** Expects the shape, `?` for a free dimension being −1. */
export function expectShape(context: ShapeContext, found: Weight, name: string, shape: readonly number[]): void {
  context.expect(
    found.shape.length === shape.length && shape.every((size, i) => size === found.shape[i]),
    `${name} of ${context.step.op} is [${shape.join(', ')}]`,
  );
}

/** A whole number of at least 1 from the attributes. */
export function size(context: ShapeContext, name: string): number {
  const value = context.number(name);
  context.expect(Number.isInteger(value) && value > 0, `${context.step.op}.${name} is a whole number above 0`);
  return value;
}

/** The cache layer the step names. */
export function cacheLayer(context: ShapeContext): KvLayer {
  const layer = context.kv.layers[context.number('cache')];
  context.expect(layer !== undefined, `${context.step.op}.cache is an index of the program's kv layers`);
  return layer;
}

export function output(value: Pick<Value, 'rows'>, columns: number): OutputShape {
  return { type: 'f32', rows: value.rows, columns };
}
