import { expect, test } from 'vitest';
import { DownloadBar, duration } from './download-bar.ts';

function screen(isTTY: boolean) {
  const written: string[] = [];
  return {
    written,
    stream: { isTTY, columns: 80, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream,
  };
}

test('in a terminal: share, amounts, speed without what was there before, time left', () => {
  const { written, stream } = screen(true);
  let now = 0;
  const bar = new DownloadBar(stream, () => now);
  for (const fetched of [0, 1e9, 2e9]) {
    bar.update({ done: 10e9 + fetched, total: 22e9, fetched });
    now += 1000;
  }
  expect(written.at(-1)).toBe(
    `\r\x1b[K${'█'.repeat(13)}${'░'.repeat(11)} 54 %  12.0 GB of 22.0 GB  1.00 GB/s  10 s left`,
  );
  bar.clear();
  expect(written.at(-1)).toBe('\r\x1b[K');
});

test('in a log: a line for each tenth that comes', () => {
  const { written, stream } = screen(false);
  const bar = new DownloadBar(stream, () => 0);
  for (const done of [35, 38, 41, 45, 60]) bar.update({ done, total: 100, fetched: done });
  expect(written).toEqual(['41 %  41 B of 100 B\n', '60 %  60 B of 100 B\n']);
});

test.each([
  [3.2, '4 s'],
  [89, '89 s'],
  [91, '2 min'],
  [3 * 3600 + 299, '3 h 05 min'],
])('%d seconds are %s', (seconds, text) => {
  expect(duration(seconds)).toBe(text);
});
