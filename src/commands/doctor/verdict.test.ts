import { expect, it } from 'vitest';
import { PARTS, type Speed } from './speed.ts';
import { verdict } from './verdict.ts';

const CEILING = { bandwidth: 100e9, threads: 8, defaultThreads: 8 };
const QUIET = { pagesFromDisk: 0, preemptions: 3, stolen: 0, throttled: false };

/** A token of 10 GB: 10 tok/s at most. */
function speed(
  tokensPerSecond: number,
  change: Partial<Speed['counters']> = {},
  slow: Partial<Record<string, number>> = {},
): Speed {
  const parts = Object.fromEntries(
    PARTS.map((part) => [part, { milliseconds: slow[part] ?? 10, bytes: 0 }]),
  ) as Speed['parts'];
  return { tokensPerSecond, bytes: 10e9, parts, counters: { ...QUIET, ...change } };
}

it('calls most of the bandwidth normal', () => {
  expect(verdict(speed(8), CEILING)).toEqual([
    { name: 'speed', state: 'ok', found: 'normal: 8.00 tok/s, 80 % of what the memory allows (10.0 tok/s)' },
  ]);
});

it.each([
  [4.5, 'note', 'below what is usual'],
  [2, 'problem', 'slow'],
] as const)('calls %d tok/s a %s, and says where nothing explains it', (tokens, state, words) => {
  const [answer] = verdict(speed(tokens), CEILING);
  expect(answer).toMatchObject({
    state,
    found: expect.stringContaining(words),
    why: expect.stringMatching(/nothing below/),
  });
});

it.each<[string, Speed, Partial<typeof CEILING>]>([
  ['weights from the disk', speed(2, { pagesFromDisk: 40 }), {}],
  ['control group', speed(2, { throttled: true }), {}],
  ['hypervisor', speed(2, { stolen: 0.2 }), {}],
  ['other work', speed(2, { preemptions: 2000 }), {}],
  ['threads', speed(2), { threads: 2 }],
])('names %s', (name, measured, change) => {
  const [answer, cause] = verdict(measured, { ...CEILING, ...change });
  expect(answer.why).toBeUndefined();
  expect(cause).toMatchObject({ name, state: 'problem' });
  expect(cause.fix).toBeTruthy();
});

it.each([
  ['attention', { attention: 100 }],
  ['waiting', { waiting: 40 }],
])('notes %s', (name, slow) => {
  expect(verdict(speed(8, {}, slow), CEILING)[1]).toMatchObject({ name, state: 'note' });
});

it('does not hold a tiny model against the memory', () => {
  expect(verdict({ ...speed(50), bytes: 1e6 }, CEILING)[0]).toMatchObject({
    state: 'ok',
    why: expect.stringMatching(/small/),
  });
});
