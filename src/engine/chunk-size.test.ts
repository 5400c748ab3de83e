import { describe, expect, test } from 'vitest';
import { ChunkSize } from './chunk-size.ts';

const options = { minRows: 16, maxRows: 512, firstRows: 64, targetMs: 400 };
/** Runs full chunks on a machine with a fixed cost and a cost per row. */
function settle(chunk: ChunkSize, fixed: number, perRow: number): number {
  for (let i = 0; i < 20; i++) chunk.measured(chunk.rows, fixed + perRow * chunk.rows);
  return chunk.rows;
}

test('grows to the limit on a fast machine, doubling at most', () => {
  const chunk = new ChunkSize(options);
  chunk.measured(64, 1);
  expect(chunk.rows).toBe(128);
  expect(settle(chunk, 1, 0.1)).toBe(512);
});

test('settles where a pass takes about the target', () => {
  const rows = settle(new ChunkSize(options), 40, 2);
  expect(rows * 2 + 40).toBeGreaterThan(320);
  expect(rows * 2 + 40).toBeLessThanOrEqual(400);
});

test('shrinks on a slow machine, not below the minimum', () => {
  const chunk = new ChunkSize(options);
  expect(settle(chunk, 0, 100)).toBe(16);
});

test('a short fast chunk and a pass without prefill do not shrink it', () => {
  const chunk = new ChunkSize(options);
  chunk.measured(3, 50);
  chunk.measured(0, 5000);
  expect(chunk.rows).toBe(64);
});

describe('rows that are worth their time', () => {
  const patient = { ...options, mostMs: 1600 };

  test('go beyond the target, up to the longest pass and the limit', () => {
    const chunk = new ChunkSize(patient);
    settle(chunk, 0, 4);
    expect(chunk.rows).toBe(100);
    expect(chunk.rowsFor(0)).toBe(100);
    expect(chunk.rowsFor(250.5)).toBe(251);
    expect(chunk.rowsFor(1000)).toBe(400);
    settle(chunk, 0, 2);
    expect(chunk.rowsFor(1000)).toBe(512);
    expect(new ChunkSize(options).rowsFor(1000)).toBe(64);
  });

  test('a long pass bounds the next one, and the chunk that it would be without them goes on as before', () => {
    const chunk = new ChunkSize(patient);
    settle(chunk, 0, 4);
    chunk.measured(400, 3200);
    expect(chunk.rowsFor(1000)).toBe(200);
    expect(chunk.rows).toBe(50);
    chunk.measured(2, 400); // the end of a prompt says nothing
    expect(chunk.rowsFor(1000)).toBe(200);
  });
});
