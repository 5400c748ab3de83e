import { describe, expect, it } from 'vitest';
import { type Routing, routerChoices, routerIds, routerScores, routerWeights } from './routing.ts';

const PLAIN: Routing = {
  topk: 2,
  score: 'softmax',
  groups: 1,
  groupTopk: 1,
  groupScore: 'max',
  normalize: false,
  scale: 1,
};

describe('scores', () => {
  it('softmax sums to one, sigmoid takes each alone; huge logits stay finite', () => {
    const scores = routerScores(Float32Array.of(1000, 999, -1000), 'softmax');
    expect([...scores]).toEqual([Math.fround(1 / (1 + Math.exp(-1))), Math.fround(1 / (1 + Math.E)), 0]);
    expect([...routerScores(Float32Array.of(0, 1000, -1000), 'sigmoid')]).toEqual([0.5, 1, 0]);
  });
});

describe('choice', () => {
  it('best first, ties to the lowest index, NaN last', () => {
    expect(routerIds(Float32Array.of(0.1, 0.4, 0.3, 0.4), { ...PLAIN, topk: 3 })).toEqual([1, 3, 2]);
    expect(routerIds(Float32Array.of(0, 0, 0), PLAIN)).toEqual([0, 1]);
    const choices = routerChoices(Float32Array.of(Number.NaN, 0.1, 0.2), undefined);
    expect(routerIds(choices, { ...PLAIN, topk: 3 })).toEqual([2, 1, 0]);
  });

  it('groups by their maximum or by their two best, and only in groups that are kept', () => {
    const choices = Float32Array.of(0.9, 0, 0.6, 0.5, 0.1, 0.2);
    const grouped = { ...PLAIN, groups: 3, groupTopk: 1 };
    expect(routerIds(choices, { ...grouped, groupScore: 'max' })).toEqual([0, 1]);
    expect(routerIds(choices, { ...grouped, groupScore: 'top2' })).toEqual([2, 3]);
    expect(routerIds(choices, { ...grouped, groupTopk: 2, topk: 3, groupScore: 'top2' })).toEqual([0, 2, 3]);
    expect(routerIds(Float32Array.of(1, 0, 1, 0), { ...grouped, groups: 2 })).toEqual([0, 1]);
    const single = { ...PLAIN, groups: 3, groupTopk: 2, groupScore: 'top2' } as const;
    expect(routerIds(Float32Array.of(0.1, 0.3, 0.2), single)).toEqual([1, 2]); // groups of one expert
  });

  it('the bias moves the choice and not the weight', () => {
    const scores = Float32Array.of(0.75, 0.5, 0.25);
    const ids = routerIds(routerChoices(scores, Float32Array.of(0, 0, 1)), PLAIN);
    expect(ids).toEqual([2, 0]);
    expect([...routerWeights(scores, ids, PLAIN)]).toEqual([0.25, 0.75]);
    expect([...routerWeights(scores, ids, { ...PLAIN, normalize: true, scale: 2 })]).toEqual([0.5, 1.5]);
    expect([...routerWeights(Float32Array.of(0, 0), [0, 1], { ...PLAIN, normalize: true })]).toEqual([0, 0]);
  });
});
