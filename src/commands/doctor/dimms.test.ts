import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseDimms } from './dimms.ts';

/** One structure: header, body, strings. */
function structure(type: number, body: readonly number[], strings: readonly string[]): number[] {
  const text = strings.flatMap((string) => [...new TextEncoder().encode(string), 0]);
  return [type, body.length + 4, 0, 0, ...body, ...text, 0, ...(strings.length === 0 ? [0] : [])];
}

const u16 = (value: number) => [value & 0xff, value >> 8];
const u32 = (value: number) => [...u16(value & 0xffff), ...u16(value >>> 16)];

/** Type 17 with the fields up to the configured speed; offsets as in DSP0134. */
function device({
  size,
  extended = 0,
  speed,
  configured,
}: {
  size: number;
  extended?: number;
  speed: number;
  configured: number;
}) {
  const body = new Array(0x22 - 4).fill(0);
  const put = (offset: number, bytes: number[]) => body.splice(offset - 4, bytes.length, ...bytes);
  put(0x0c, u16(size));
  put(0x10, [1]);
  put(0x15, u16(speed));
  put(0x1c, u32(extended));
  put(0x20, u16(configured));
  return structure(17, body, [' DIMM_A1 ', 'BANK 0']);
}

const TABLE = new Uint8Array([
  ...structure(1, [1, 2, 3, 4], ['maker', 'product']),
  ...structure(16, [0, 0], []),
  ...device({ size: 0x7fff, extended: 65536, speed: 5600, configured: 4800 }),
  ...device({ size: 16384, speed: 3200, configured: 0 }),
  ...device({ size: 0, speed: 0, configured: 0 }),
  ...structure(127, [], []),
]);

it('reads sizes, configured speeds and empty slots', () => {
  expect(parseDimms(TABLE)).toEqual([
    { slot: 'DIMM_A1', bytes: 64 * 2 ** 30, transfersPerSecond: 4800e6 },
    { slot: 'DIMM_A1', bytes: 16 * 2 ** 30, transfersPerSecond: 3200e6 },
    { slot: 'DIMM_A1', bytes: 0, transfersPerSecond: 0 },
  ]);
});

it('ends on any table, whole, cut or of noise', () => {
  for (let end = 0; end <= TABLE.length; end++)
    expect(parseDimms(TABLE.subarray(0, end)).length).toBeLessThanOrEqual(3);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => Array.isArray(parseDimms(bytes))));
});
