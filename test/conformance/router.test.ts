/** router: ids exactly as the reference's, ties and broken logits included. */
import { describe, it } from 'vitest';
import { floats, judgeOp, nativeIsas, type OpCase, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

interface Shape {
  readonly experts: number;
  readonly topk: number;
  readonly groups: number;
  readonly groupTopk: number;
}

const SHAPES: readonly Shape[] = [
  { experts: 1, topk: 1, groups: 1, groupTopk: 1 },
  { experts: 7, topk: 7, groups: 1, groupTopk: 1 },
  { experts: 64, topk: 6, groups: 1, groupTopk: 1 },
  { experts: 160, topk: 6, groups: 8, groupTopk: 3 },
  { experts: 256, topk: 8, groups: 8, groupTopk: 4 },
  { experts: 8, topk: 3, groups: 8, groupTopk: 5 },
  { experts: 12, topk: 4, groups: 4, groupTopk: 4 },
];
const RULES = (['softmax', 'sigmoid'] as const).flatMap((score) =>
  (['max', 'top2'] as const).flatMap((groupScore) =>
    [false, true].map((normalize) => ({ score, groupScore, normalize, scale: normalize ? 2.5 : 1 })),
  ),
);

function routerCase({ experts, ...shape }: Shape, rule: (typeof RULES)[number], rows: number, biased: boolean): OpCase {
  return {
    op: 'router',
    inputs: [floats(rows, experts, experts + rows, 2), biased ? weight('f32', [experts], 3, 0.1) : null],
    attributes: { ...shape, ...rule },
  };
}

describe.skipIf(reason).each(isas)(`router, %s ${reason ?? ''}`, (isa) => {
  it.each(RULES)('$score, groups by $groupScore, normalized: $normalize', async (rule) => {
    for (const shape of SHAPES)
      for (const biased of [false, true])
        for (const rows of [1, 33])
          await judgeOp(routerCase(shape, rule, rows, biased), isa, { threads: 1 + (rows % 3) });
  });

  it('breaks ties to the lowest index', async () => {
    for (const rule of RULES)
      for (const shape of SHAPES) {
        const test = routerCase(shape, rule, 20, false);
        const [logits] = test.inputs;
        if (logits && 'data' in logits)
          logits.data.forEach((x, i) => {
            logits.data[i] = Math.round(x / 2);
          });
        await judgeOp(test, isa);
      }
  });

  it('stays in range whatever the logits are', async () => {
    const broken = [Number.NaN, Infinity, -Infinity, 1000, -1000, 0];
    for (const rule of RULES)
      for (const shape of SHAPES)
        for (const biased of [false, true]) {
          const test = routerCase(shape, rule, broken.length ** 2, biased);
          const [logits] = test.inputs;
          if (logits && 'data' in logits) {
            const { data, columns } = logits;
            for (let r = 0; r < logits.rows; r++) {
              data[r * columns + (r % columns)] = broken[r % broken.length];
              data[(r + 1) * columns - 1 - (r % columns)] = broken[Math.floor(r / broken.length)];
              if (r === 0) data.fill(Number.NaN, 0, columns);
            }
          }
          await judgeOp(test, isa);
        }
  });
});
