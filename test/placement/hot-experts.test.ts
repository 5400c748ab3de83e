/**
 * Policies of holding experts, over the routing of the shipped model and over drawn routing. `jug-routing.bin`: ids of 1,000
 * tokens of its even puzzles, then of its odd ones, [tokens, 4 layers, 4 chosen], as bench/hot-experts.mjs --write has them.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  drawRouting,
  followed,
  lastUsed,
  pinned,
  type RoutingTrace,
  simulate,
} from '../../src/placement/hot-simulation.ts';
import { random } from '../conformance/random.ts';

const RATES = { cpu: 150e9, dram: 200e9, gpu: 700e9, pcie: 25e9 };

const bytes = readFileSync(new URL('jug-routing.bin', import.meta.url));
const jug = (part: number): RoutingTrace => ({
  experts: 16,
  layers: 4,
  chosen: 4,
  ids: Uint8Array.from(bytes.subarray(part * 16_000, (part + 1) * 16_000)),
});

const SHAPE = { experts: 256, layers: 2, chosen: 8, tokens: 3000, subject: 500 };

describe('the routing of the shipped model', () => {
  const [before, trace] = [jug(0), jug(1)];

  test.each([2, 4])('%i of 16 held: what follows catches more than pins, with few uploads', (slots) => {
    const pins = simulate(trace, pinned(before, slots), RATES);
    const hot = simulate(trace, followed(trace, slots, RATES), RATES, { room: 1 });
    const last = simulate(trace, lastUsed(trace, slots), RATES, { waits: true });
    expect(hot.hits).toBeGreaterThan(pins.hits);
    expect(hot.hits).toBeGreaterThan(last.hits);
    expect(hot.hits).toBeGreaterThan(slots / 16);
    expect(hot.uploadsPerToken).toBeLessThan(0.4);
    expect(hot.time).toBeLessThan(pins.time);
    // Uploading what is missed costs more than computing it.
    expect(last.time).toBeGreaterThan(1);
  });
});

describe('drawn routing', () => {
  const drawn = drawRouting({ ...SHAPE, skew: 1.2, always: 0.7, stay: 0.3 }, random(1));

  test('is routing: so many different experts for every token of every layer', () => {
    const { ids, chosen, experts } = drawn;
    expect(ids.length).toBe(3000 * 2 * 8);
    for (let at = 0; at < ids.length; at += chosen) {
      const row = ids.subarray(at, at + chosen);
      expect(new Set(row).size).toBe(chosen);
      expect(Math.max(...row)).toBeLessThan(experts);
    }
  });

  test('26 of 256 held: near what uploading every miss catches, at a thirtieth of its uploads', () => {
    const hot = simulate(drawn, followed(drawn, 26, RATES), RATES, { room: 1 });
    const last = simulate(drawn, lastUsed(drawn, 26), RATES, { waits: true });
    expect(hot.hits).toBeGreaterThan(0.8 * last.hits);
    expect(hot.uploadsPerToken).toBeLessThan(last.uploadsPerToken / 20);
    expect(hot.time).toBeLessThan(0.65);
    expect(last.time).toBeGreaterThan(1);
  });

  test.each([
    ['all alike', { skew: 0, always: 0, stay: 0 }],
    ['a new subject every 20 tokens', { skew: 1.5, always: 0, stay: 0, subject: 20 }],
    ['only what was taken just now', { skew: 0, always: 0, stay: 0.6 }],
  ])('is never slower than nothing held: %s', (_, law) => {
    const trace = drawRouting({ ...SHAPE, ...law }, random(2));
    const { time, hits } = simulate(trace, followed(trace, 26, RATES), RATES, { room: 4 });
    expect(hits).toBeGreaterThan(0.05);
    expect(time).toBeLessThan(1);
  });
});
