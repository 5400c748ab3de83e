/**
 * experts: the routed feed-forward of a mixture of experts. Row t, its j-th expert e = ids[t, j]:
 *
 *     g = gate_e·x + gateBias_e    u = up_e·x + upBias_e    h = gated(g, u)
 *     y = Σⱼ weights[t, j] · (down_e·h + downBias_e)                                −1 stands for no expert
 *
 * `activation` silu: h = silu(g) · u. `swiglu-clamped` (gpt-oss): g = min(g, limit), u = clamp(u, ±limit),
 * h = g · sigmoid(alpha · g) · (u + 1). x is rounded to `placement.activation`, h (stored as f32) to `placement.middle`.
 * An expert that at least `tiles` rows visit is computed on tiles: x, h and its weights are rounded to bf16 instead.
 */
import { roundActivations, roundedError, roundForTiles } from './activation.ts';
import { ARITHMETIC } from './bound.ts';
import { GATED_NAMES, gatedOf } from './gated.ts';
import { dot, dotMagnitude } from './math.ts';
import { defineOp, type WeightReader } from './op.ts';
import { expectShape, floats, integers, output, weight } from './shapes.ts';

export const experts = defineOp({
  name: 'experts',
  inputs: [
    { name: 'x', kind: 'value' },
    { name: 'ids', kind: 'value' },
    { name: 'weights', kind: 'value' },
    { name: 'gate', kind: 'weight' },
    { name: 'up', kind: 'weight' },
    { name: 'down', kind: 'weight' },
    { name: 'gateBias', kind: 'weight', optional: true },
    { name: 'upBias', kind: 'weight', optional: true },
    { name: 'downBias', kind: 'weight', optional: true },
  ],
  attributes: {
    activation: { type: 'string' },
    alpha: { type: 'number', default: 1.702 },
    limit: { type: 'number', default: 7 },
  },
  chosenBy: 1,
  // The magnitude carries the error of h too: of both products through the slopes of the activation, and a whole step of the
  // format of `middle` where one step of f32 can flip a code (roundedError).
  bound: ARITHMETIC,
  shape(context) {
    const x = floats(context, 0, 'x');
    const ids = integers(context, 1, 'ids');
    const weights = floats(context, 2, 'weights');
    context.expect(
      ids.rows === x.rows && weights.rows === x.rows && ids.columns === weights.columns,
      'experts has as many ids and weights as one another, for every row of x',
    );
    const gate = weight(context, 3, 'gate', 3);
    const [count, ffn, hidden] = gate.shape;
    expectShape(context, gate, 'gate', [count, ffn, x.columns]);
    expectShape(context, weight(context, 4, 'up', 3), 'up', [count, ffn, hidden]);
    expectShape(context, weight(context, 5, 'down', 3), 'down', [count, hidden, ffn]);
    // A bias is a matrix of one column: its rows may be some of a stored tensor's, as those of gate and up.
    for (const [operand, name, rows] of [
      [6, 'gateBias', ffn],
      [7, 'upBias', ffn],
      [8, 'downBias', hidden],
    ] as const)
      if (context.weights[operand]) {
        const bias = weight(context, operand, name, 3);
        expectShape(context, bias, name, [count, rows, 1]);
        context.expect(['f32', 'f16', 'bf16'].includes(bias.format), `${name} of experts is f32, f16 or bf16`);
      }
    const activation = context.text('activation');
    context.expect(GATED_NAMES.includes(activation), `the activation of experts is one of ${GATED_NAMES.join(', ')}`);
    context.expect(context.number('limit') > 0, 'the limit of experts is above 0');
    context.number('alpha');
    return [output(x, x.columns)];
  },
  reference(context) {
    const given = context.matrix(0);
    const rounded = roundActivations(context.activation, given).data;
    const forTiles = context.tiles < Infinity ? roundForTiles(given.data) : rounded;
    const ids = context.integers(1);
    const weights = context.matrix(2);
    const gate = context.weight(3);
    const up = context.weight(4);
    const down = context.weight(5);
    const [gateBias, upBias, downBias] = [6, 7, 8].map((operand) =>
      context.has(operand) ? context.weight(operand) : undefined,
    );
    const gated = gatedOf(context.text('activation'), context.number('alpha'), context.number('limit'));
    const y = context.output(0);
    const magnitude = context.magnitude(0);
    const [, ffn, hidden] = gate.shape;
    const sums = new Float64Array(y.data.length);
    const sizes = magnitude && new Float64Array(y.data.length);
    const { c, epsilonAccumulate } = ARITHMETIC;

    for (const [expert, visits] of visitsByExpert(ids.data)) {
      const onTiles = visits.length >= context.tiles;
      const x = onTiles ? forTiles : rounded;
      const rowOf = (weight: WeightReader, row: number) => (onTiles ? roundForTiles(weight.row(row)) : weight.row(row));
      // First half: h of every row that visits this expert, each weight row decoded once.
      const h = new Float32Array(visits.length * ffn);
      const hError = magnitude && new Float64Array(visits.length * ffn);
      for (let f = 0; f < ffn; f++) {
        const gateRow = rowOf(gate, expert * ffn + f).slice();
        const upRow = rowOf(up, expert * ffn + f);
        const gateOffset = biasAt(gateBias, expert * ffn + f);
        const upOffset = biasAt(upBias, expert * ffn + f);
        visits.forEach((visit, v) => {
          const start = Math.floor(visit / ids.columns) * hidden;
          const g = dot(x, start, gateRow, 0, hidden) + gateOffset;
          const u = dot(x, start, upRow, 0, hidden) + upOffset;
          const value = gated.value(g, u);
          h[v * ffn + f] = value;
          if (!hError) return;
          const slopes = gated.slopes(g, u);
          const gError = (dotMagnitude(x, start, gateRow, 0, hidden) + Math.abs(gateOffset)) * slopes.gate;
          const uError = (dotMagnitude(x, start, upRow, 0, hidden) + Math.abs(upOffset)) * slopes.up;
          hError[v * ffn + f] = epsilonAccumulate * (gError + uError + Math.abs(value));
        });
      }
      // Second half: the rounded h through down, weighted.
      const middle = onTiles ? 'bf16' : context.middle;
      const roundedH = onTiles
        ? roundForTiles(h)
        : roundActivations(middle, { rows: visits.length, columns: ffn, data: h }).data;
      const errors = hError && roundedError(middle, h, hError, c);
      for (let n = 0; n < hidden; n++) {
        const row = rowOf(down, expert * hidden + n);
        const offset = biasAt(downBias, expert * hidden + n);
        visits.forEach((visit, v) => {
          const at = Math.floor(visit / ids.columns) * hidden + n;
          sums[at] += weights.data[visit] * (dot(roundedH, v * ffn, row, 0, ffn) + offset);
          if (!sizes || !errors) return;
          let error = epsilonAccumulate * (dotMagnitude(roundedH, v * ffn, row, 0, ffn) + Math.abs(offset));
          for (let f = 0; f < ffn; f++) error += errors[v * ffn + f] * Math.abs(row[f]);
          sizes[at] += (Math.abs(weights.data[visit]) * error) / epsilonAccumulate;
        });
      }
    }
    y.data.set(sums);
    if (sizes) magnitude.set(sizes);
  },
});

/** Element `row` of a bias; 0 where there is none. */
function biasAt(bias: WeightReader | undefined, row: number): number {
  return bias ? bias.row(row)[0] : 0;
}

/**
 * Expert → indices into ids of the places that name it. In f64 the order of the sum does not show, so experts go in
 * ascending order here whatever the batch; native, in f32, sums in the order of j.
 */
function visitsByExpert(ids: Int32Array): [number, number[]][] {
  const visits = new Map<number, number[]>();
  ids.forEach((id, place) => {
    if (id < 0) return;
    const places = visits.get(id);
    if (places) places.push(place);
    else visits.set(id, [place]);
  });
  return [...visits].sort(([a], [b]) => a - b);
}
