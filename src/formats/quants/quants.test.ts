import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TandemError } from '../../errors.ts';
import { FORMAT_NAMES, type FormatName, rowBytes } from '../dtype.ts';
import { EDGE_COLUMNS, edgeRows } from './edge-rows.ts';
import { type GridName, grid } from './grids.ts';
import { E4M3_VALUES, F16_VALUES, f32BitsToBf16, f32BitsToE4m3, f32ToF16, floatBits } from './half.ts';
import { isFormatName, quantFormat } from './index.ts';
import { decodeScales, encodeScales, SCALE_BYTES } from './scales.ts';

const fixtures = new URL('fixtures/', import.meta.url);
const index: Record<string, { rows: number; cols: number; bytes: number }> = JSON.parse(
  readFileSync(new URL('index.json', fixtures), 'utf8'),
);

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function encode(name: FormatName, values: Float32Array): Uint8Array {
  const format = quantFormat(name);
  const out = new Uint8Array(rowBytes(format, values.length));
  format.encodeRow!(values, out);
  return out;
}

function decode(name: FormatName, bytes: Uint8Array, columns: number): Float32Array {
  const out = new Float32Array(columns);
  quantFormat(name).decodeRow(bytes, out);
  return out;
}

describe('vectors of an independent decoder', () => {
  it.each(Object.entries(index))('%s decodes to exactly these bits', (name, { rows, cols, bytes }) => {
    const format = quantFormat(name.toLowerCase());
    const blocks = readFileSync(new URL(`${name}.blocks`, fixtures));
    const expected = new Uint32Array(new Uint8Array(readFileSync(new URL(`${name}.f32`, fixtures))).buffer);
    const size = rowBytes(format, cols);
    expect(blocks.length).toBe(bytes);
    expect(size * rows).toBe(bytes);
    const out = new Float32Array(cols);
    for (let row = 0; row < rows; row++) {
      format.decodeRow(blocks.subarray(row * size, (row + 1) * size), out);
      expect(bitsOf(out)).toEqual(expected.subarray(row * cols, (row + 1) * cols));
    }
  });
});

/**
 * The value of weight i of a block, field by field as the layouts are written down, each operation rounded by itself.
 * Slow and shaped unlike the decoders, so that the two agree only when both are right.
 */
const LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const u16 = (b: Uint8Array, at: number) => b[at] + 256 * b[at + 1];
const half = (b: Uint8Array, at: number) => halfByHand(u16(b, at));
const i8 = (byte: number) => (byte < 128 ? byte : byte - 256);
const bit = (b: Uint8Array, at: number, i: number) => Math.floor(b[at + Math.floor(i / 8)] / 2 ** (i % 8)) % 2;
const nibble = (b: Uint8Array, at: number, i: number) => (i < 16 ? b[at + i] % 16 : Math.floor(b[at + i - 16] / 16));
const mul = (a: number, b: number) => Math.fround(a * b);
const add = (a: number, b: number) => Math.fround(a + b);
const sub = (a: number, b: number) => Math.fround(a - b);

function halfByHand(bits: number): number {
  const sign = bits >= 0x8000 ? -1 : 1;
  const exponent = Math.floor(bits / 1024) % 32;
  const mantissa = bits % 1024;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}

/** The eight scales, then the eight mins, of q4_k and q5_k. */
function kPair(b: Uint8Array, at: number, j: number): [scale: number, min: number] {
  const s = b.subarray(at, at + 12);
  if (j < 4) return [s[j] % 64, s[j + 4] % 64];
  return [(s[j + 4] % 16) + 16 * Math.floor(s[j - 4] / 64), Math.floor(s[j + 4] / 16) + 16 * Math.floor(s[j] / 64)];
}

/** A number of `count` bits from bit `from` of the little-endian bytes at `at` on. */
const bits = (b: Uint8Array, at: number, from: number, count: number) =>
  Array.from({ length: count }, (_, i) => bit(b, at, from + i) * 2 ** i).reduce((sum, value) => sum + value, 0);
/** Whether weight j of eight is negative, where seven bits from bit `from` on say it and the number of signs is even. */
const sevenSigns = (b: Uint8Array, at: number, from: number, j: number) =>
  (j < 7 ? bit(b, at, from + j) : [0, 1, 2, 3, 4, 5, 6].reduce((sum, k) => sum + bit(b, at, from + k), 0) % 2) === 1;
const level = (book: GridName, row: number, count: number, i: number) => grid(book)[row * count + (i % count)];
const signed = (value: number, minus: boolean) => (minus ? mul(value, -1) : value);
const iq1 = (d: number, scale: number, value: number, minus: number) =>
  mul(mul(d, 2 * scale + 1), add(value, minus === 1 ? -0.125 : 0.125));

const WRITTEN_DOWN: Partial<Record<FormatName, (b: Uint8Array, i: number) => number>> = {
  q8_0: (b, i) => mul(half(b, 0), i8(b[2 + i])),
  q4_0: (b, i) => mul(half(b, 0), nibble(b, 2, i) - 8),
  q4_1: (b, i) => add(mul(half(b, 0), nibble(b, 4, i)), half(b, 2)),
  q5_0: (b, i) => mul(half(b, 0), nibble(b, 6, i) + 16 * bit(b, 2, i) - 16),
  q5_1: (b, i) => add(mul(half(b, 0), nibble(b, 8, i) + 16 * bit(b, 4, i)), half(b, 2)),
  iq4_nl: (b, i) => mul(half(b, 0), LEVELS[nibble(b, 2, i)]),
  iq4_xs: (b, i) => {
    const s = Math.floor(i / 32);
    const low = s % 2 === 0 ? b[4 + s / 2] % 16 : Math.floor(b[4 + (s - 1) / 2] / 16);
    const high = bit(b, 2, 2 * s) + 2 * bit(b, 2, 2 * s + 1);
    return mul(mul(half(b, 0), low + 16 * high - 32), LEVELS[nibble(b, 8 + 16 * s, i % 32)]);
  },
  q2_k: (b, i) => {
    const packed = b[Math.floor(i / 16)];
    const q = Math.floor(b[16 + 32 * Math.floor(i / 128) + (i % 32)] / 4 ** Math.floor((i % 128) / 32)) % 4;
    return sub(mul(mul(half(b, 80), packed % 16), q), mul(half(b, 82), Math.floor(packed / 16)));
  },
  q3_k: (b, i) => {
    const s = Math.floor(i / 16);
    const low = s < 8 ? b[96 + s] % 16 : Math.floor(b[96 + s - 8] / 16);
    const high = Math.floor(b[104 + (s % 4)] / 4 ** Math.floor(s / 4)) % 4;
    const q = Math.floor(b[32 + 32 * Math.floor(i / 128) + (i % 32)] / 4 ** Math.floor((i % 128) / 32)) % 4;
    const clear = Math.floor(b[i % 32] / 2 ** Math.floor(i / 32)) % 2 === 0;
    return mul(mul(half(b, 108), low + 16 * high - 32), clear ? q - 4 : q);
  },
  q4_k: (b, i) => {
    const s = Math.floor(i / 32);
    const [scale, min] = kPair(b, 4, s);
    const byte = b[16 + 32 * Math.floor(s / 2) + (i % 32)];
    const q = s % 2 === 0 ? byte % 16 : Math.floor(byte / 16);
    return sub(mul(mul(half(b, 0), scale), q), mul(half(b, 2), min));
  },
  q5_k: (b, i) => {
    const s = Math.floor(i / 32);
    const [scale, min] = kPair(b, 4, s);
    const byte = b[48 + 32 * Math.floor(s / 2) + (i % 32)];
    const q = (s % 2 === 0 ? byte % 16 : Math.floor(byte / 16)) + 16 * (Math.floor(b[16 + (i % 32)] / 2 ** s) % 2);
    return sub(mul(mul(half(b, 0), scale), q), mul(half(b, 2), min));
  },
  q6_k: (b, i) => {
    const [part, r, j] = [Math.floor(i / 128), Math.floor((i % 128) / 32), i % 32];
    const l = b.subarray(64 * part);
    const low = [l[j] % 16, l[32 + j] % 16, Math.floor(l[j] / 16), Math.floor(l[32 + j] / 16)][r];
    const high = Math.floor(b[128 + 32 * part + j] / 4 ** r) % 4;
    return mul(mul(half(b, 208), i8(b[192 + Math.floor(i / 16)])), low + 16 * high - 32);
  },
  iq2_xxs: (b, i) => {
    const [at, l] = [2 + 8 * Math.floor(i / 32), Math.floor((i % 32) / 8)];
    const scale = mul(mul(half(b, 0), 0.5 + bits(b, at + 4, 28, 4)), 0.25);
    return signed(mul(scale, level('iq2_xxs', b[at + l], 8, i)), sevenSigns(b, at + 4, 7 * l, i % 8));
  },
  iq2_xs: (b, i) => {
    const from = 16 * Math.floor(i / 8);
    const scale = mul(mul(half(b, 0), 0.5 + bits(b, 66, 4 * Math.floor(i / 16), 4)), 0.25);
    return signed(mul(scale, level('iq2_xs', bits(b, 2, from, 9), 8, i)), sevenSigns(b, 2, from + 9, i % 8));
  },
  iq2_s: (b, i) => {
    const l = Math.floor(i / 8);
    const scale = mul(mul(half(b, 0), 0.5 + bits(b, 74, 4 * Math.floor(i / 16), 4)), 0.25);
    return signed(mul(scale, level('iq2_s', b[2 + l] + 256 * bits(b, 66, 2 * l, 2), 8, i)), bit(b, 34, i) === 1);
  },
  iq3_xxs: (b, i) => {
    const at = 66 + 4 * Math.floor(i / 32);
    const scale = mul(mul(half(b, 0), 0.5 + bits(b, at, 28, 4)), 0.5);
    const minus = sevenSigns(b, at, 7 * Math.floor((i % 32) / 8), i % 8);
    return signed(mul(scale, level('iq3_xxs', b[2 + Math.floor(i / 4)], 4, i)), minus);
  },
  iq3_s: (b, i) => {
    const r = Math.floor(i / 4);
    const scale = mul(half(b, 0), 1 + 2 * bits(b, 106, 4 * Math.floor(i / 32), 4));
    return signed(mul(scale, level('iq3_s', b[2 + r] + 256 * bit(b, 66, r), 4, i)), bit(b, 74, i) === 1);
  },
  iq1_s: (b, i) => {
    const [from, l] = [16 * Math.floor(i / 32), Math.floor(i / 8)];
    const row = b[2 + l] + 256 * bits(b, 34, from + 3 * (l % 4), 3);
    return iq1(half(b, 0), bits(b, 34, from + 12, 3), level('iq1_s', row, 8, i), bit(b, 34, from + 15));
  },
  iq1_m: (b, i) => {
    const [s, l] = [Math.floor(i / 16), Math.floor(i / 8)];
    const d = halfByHand([0, 1, 2, 3].reduce((sum, n) => sum + 16 ** n * bits(b, 48, 16 * n + 12, 4), 0));
    const row = b[l] + 256 * bits(b, 32, 4 * l, 3);
    const scale = bits(b, 48, 16 * Math.floor(s / 4) + 3 * (s % 4), 3);
    return iq1(d, scale, level('iq1_s', row, 8, i), bit(b, 32, 4 * l + 3));
  },
  mxfp4: (b, i) => {
    const q = nibble(b, 1, i);
    const [exponent, mantissa] = [Math.floor((q % 8) / 2), q % 2];
    const magnitude = exponent === 0 ? mantissa / 2 : (1 + mantissa / 2) * 2 ** (exponent - 1);
    return mul(b[0] === 255 ? Number.NaN : 2 ** (b[0] - 127), q > 8 ? -magnitude : magnitude);
  },
};

describe('edge scales and every code', () => {
  const formats = Object.entries(WRITTEN_DOWN) as [FormatName, (b: Uint8Array, i: number) => number][];

  it.each(formats)('%s is what its layout says', (name, valueAt) => {
    const format = quantFormat(name);
    const rows = edgeRows(format);
    const size = rowBytes(format, EDGE_COLUMNS);
    const expected = new Float32Array(EDGE_COLUMNS);
    const kinds = { finite: 0, infinite: 0, nan: 0, negativeZero: 0 };
    for (let at = 0; at < rows.length; at += size) {
      const actual = decode(name, rows.subarray(at, at + size), EDGE_COLUMNS);
      for (let i = 0; i < EDGE_COLUMNS; i++) {
        const block = at + Math.floor(i / format.blockSize) * format.blockBytes;
        expected[i] = valueAt(rows.subarray(block, block + format.blockBytes), i % format.blockSize);
        if (Number.isNaN(expected[i])) kinds.nan++;
        else if (!Number.isFinite(expected[i])) kinds.infinite++;
        else kinds.finite++;
        if (Object.is(expected[i], -0)) kinds.negativeZero++;
        if (!Object.is(actual[i], expected[i])) {
          expect(actual[i], `row ${at / size}, column ${i}`).toBe(expected[i]);
        }
      }
    }
    for (const kind of ['finite', 'infinite', 'nan'] as const) expect(kinds[kind], kind).toBeGreaterThan(0);
  });

  it.each(formats)('%s agrees on random blocks', (name, valueAt) => {
    const { blockBytes, blockSize } = quantFormat(name);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: blockBytes, maxLength: blockBytes }), (block) => {
        const actual = decode(name, block, blockSize);
        expect(actual).toEqual(Float32Array.from(actual, (_, i) => valueAt(block, i)));
      }),
      { numRuns: 100 },
    );
  });
});

describe('small floats', () => {
  it('f16: all 65,536 values, and rounding to nearest even between neighbours', () => {
    for (let bits = 0; bits < 65536; bits++) {
      expect(Object.is(F16_VALUES[bits], halfByHand(bits))).toBe(true);
      if (!Number.isNaN(F16_VALUES[bits])) expect(f32ToF16(F16_VALUES[bits])).toBe(bits);
      if (bits >= 0x7bff) continue;
      const next = F16_VALUES[bits + 1];
      const middle = (F16_VALUES[bits] + next) / 2;
      expect(f32ToF16(middle)).toBe(bits + (bits & 1));
      expect(f32ToF16(middle - (next - middle) / 1024)).toBe(bits);
      expect(f32ToF16(middle + (next - middle) / 1024)).toBe(bits + 1);
      expect(f32ToF16(-middle)).toBe(0x8000 | (bits + (bits & 1)));
    }
    expect(f32ToF16(65519.996)).toBe(0x7bff);
    expect(f32ToF16(65520)).toBe(0x7c00);
    expect(f32ToF16(2 ** -25)).toBe(0);
  });

  it('e4m3: all 256 values', () => {
    for (let code = 0; code < 256; code++) {
      const [exponent, mantissa] = [(code >> 3) & 15, code & 7];
      const magnitude = exponent === 0 ? mantissa / 512 : (1 + mantissa / 8) * 2 ** (exponent - 7);
      const value = (code & 127) === 127 ? Number.NaN : code < 128 ? magnitude : -magnitude;
      expect(Object.is(E4M3_VALUES[code], value)).toBe(true);
    }
    expect(E4M3_VALUES[0x7e]).toBe(448);
  });

  it('e4m3 rounds to nearest even, and stops at ±448', () => {
    const e4m3 = (value: number) => f32BitsToE4m3(floatBits(value));
    for (let code = 0; code < 0x7e; code++) {
      const [value, next] = [E4M3_VALUES[code], E4M3_VALUES[code + 1]];
      const middle = (value + next) / 2;
      expect(e4m3(value)).toBe(code);
      expect(e4m3(-value)).toBe(0x80 | code);
      expect(e4m3(middle)).toBe(code + (code & 1));
      expect(e4m3(middle - (next - middle) / 1024)).toBe(code);
      expect(e4m3(middle + (next - middle) / 1024)).toBe(code + 1);
    }
    expect([448, 464, 1e30, Number.POSITIVE_INFINITY].map(e4m3)).toEqual([0x7e, 0x7e, 0x7e, 0x7e]);
    expect(e4m3(Number.NEGATIVE_INFINITY)).toBe(0xfe);
    expect(e4m3(Number.NaN) & 0x7f).toBe(0x7f);
  });

  it('bf16 rounds to nearest even', () => {
    expect(f32BitsToBf16(0x3f808000)).toBe(0x3f80);
    expect(f32BitsToBf16(0x3f818000)).toBe(0x3f82);
    expect(f32BitsToBf16(0x3f808001)).toBe(0x3f81);
    expect(f32BitsToBf16(0x7f7fffff)).toBe(0x7f80);
    expect(f32BitsToBf16(0x7f800001)).toBe(0x7fc0);
    expect(f32BitsToBf16(0xffffffff)).toBe(0xffff);
  });

  it('f32, f16 and bf16 keep NaN and its bits, from unaligned bytes too', () => {
    const nan = new Uint8Array([0xff, 0x01, 0x00, 0xa0, 0xff]).subarray(1);
    expect(bitsOf(decode('f32', nan, 1))[0]).toBe(0xffa00001);
    expect(bitsOf(decode('bf16', nan.subarray(2), 1))[0]).toBe(0xffa00000);
    expect(bitsOf(decode('f16', new Uint8Array([0x01, 0x7d]), 1))[0]).toBe(0x7fa02000);
    const value = new Float32Array(1);
    bitsOf(value)[0] = 0xffa02001;
    expect([...encode('f16', value)]).toEqual([0x01, 0xff]);
    expect([...encode('bf16', value)]).toEqual([0xe0, 0xff]);
    expect([...encode('f32', value)]).toEqual([0x01, 0x20, 0xa0, 0xff]);
  });

  it('f8_e4m3 multiplies by the scale of its 128 columns', () => {
    const format = quantFormat('f8_e4m3');
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => i);
    const scales = Float32Array.of(0.1, -3e38, 1e-44);
    const out = new Float32Array(300);
    format.decodeRow(bytes, out, scales);
    for (let i = 0; i < 300; i++) {
      expect(Object.is(out[i], Math.fround(E4M3_VALUES[i & 255] * scales[Math.floor(i / 128)]))).toBe(true);
    }
    expect(() => format.decodeRow(bytes, out)).toThrow(TandemError);
    expect(() => format.decodeRow(bytes, out, scales.subarray(1))).toThrow(TandemError);
  });
});

describe('nibbles with scales apart', () => {
  const codes = Uint8Array.from({ length: 32 }, (_, i) => i * 41);
  const nibbleOf = (i: number) => (i % 2 === 0 ? codes[i / 2] % 16 : Math.floor(codes[(i - 1) / 2] / 16));

  it('int4_g32: eight nibbles a word from the low end, 8 is zero, bf16 scales', () => {
    // The word 0x76543210 holds weights 0 … 7 with codes 0 … 7, as compressed-tensors packs them.
    const first = new Uint8Array(new Uint32Array([0x76543210, 0xfedcba98, 0, 0]).buffer);
    const out = new Float32Array(32);
    const scales = decodeScales('bf16', Uint8Array.of(0x80, 0x3f));
    quantFormat('int4_g32').decodeRow(first, out, scales);
    expect([...out.subarray(0, 16)]).toEqual([-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7]);
    const edges = decodeScales('bf16', Uint8Array.of(0x01, 0xbf, 0x7f, 0x7f));
    expect([...edges]).toEqual([-(0.5 + 2 ** -8), (2 - 2 ** -7) * 2 ** 127]);
    const row = new Float32Array(64);
    quantFormat('int4_g32').decodeRow(codes, row, edges);
    for (let i = 0; i < 64; i++) expect(Object.is(row[i], mul(nibbleOf(i) - 8, edges[i < 32 ? 0 : 1]))).toBe(true);
  });

  it('mxfp4_g32: levels of e2m1 times powers of two, no negative zero', () => {
    const levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
    const scales = decodeScales('e8m0', Uint8Array.of(0, 252));
    expect([...scales]).toEqual([2 ** -127, 2 ** 125]);
    expect(decodeScales('e8m0', Uint8Array.of(255))[0]).toBeNaN();
    const row = new Float32Array(64);
    quantFormat('mxfp4_g32').decodeRow(codes, row, scales);
    for (let i = 0; i < 64; i++) {
      const code = nibbleOf(i);
      const level = code > 8 ? -levels[code - 8] : levels[code % 8];
      expect(Object.is(row[i], mul(level, scales[i < 32 ? 0 : 1]))).toBe(true);
    }
  });

  it('refuses a row without its scales', () => {
    for (const name of ['int4_g32', 'mxfp4_g32'])
      for (const scales of [undefined, new Float32Array(1), new Float32Array(3)])
        expect(() => quantFormat(name).decodeRow(codes, new Float32Array(64), scales)).toThrow(TandemError);
  });

  it.each(['f32', 'bf16', 'e8m0'] as const)('%s scales: decode ∘ encode is the identity', (type) => {
    const bytes = Uint8Array.from({ length: 256 * SCALE_BYTES[type] }, (_, i) => (i * 37) & 0x7f);
    expect(encodeScales(type, decodeScales(type, bytes))).toEqual(bytes);
  });
});

const anyFloat = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true, min: -8e6, max: 8e6 }),
  fc.float({ noNaN: true, min: Math.fround(-1e-6), max: Math.fround(1e-6) }),
  fc.float({ noNaN: true, min: -(2 ** -126), max: 2 ** -126 }),
  fc.constantFrom(0, -0, 1, -1),
);

describe('encoding', () => {
  it.each(['f16', 'bf16', 'q8_0', 'q4_0', 'mxfp4'] as const)('%s: encode ∘ decode ∘ encode is stable', (name) => {
    const limit = name === 'q4_0' ? 16 : 1; // 8 · 65504 is the most q4_0 holds
    fc.assert(
      fc.property(fc.array(anyFloat, { minLength: 64, maxLength: 64 }), (numbers) => {
        const first = encode(
          name,
          Float32Array.from(numbers, (value) => value / limit),
        );
        expect(encode(name, decode(name, first, 64))).toEqual(first);
      }),
      { numRuns: 500 },
    );
  });

  it.each(['mxfp4_g32', 'int4_g32'] as const)('%s: encode ∘ decode ∘ encode is stable', (name) => {
    const format = quantFormat(name);
    const { type } = format.scaleBlock!;
    const pack = (values: Float32Array) => {
      const [codes, scales] = [new Uint8Array(32), new Uint8Array(2 * SCALE_BYTES[type])];
      format.encodeScaledRow!(values, codes, scales);
      return { codes, scales };
    };
    fc.assert(
      fc.property(fc.array(anyFloat, { minLength: 64, maxLength: 64 }), (numbers) => {
        const first = pack(Float32Array.from(numbers));
        const decoded = new Float32Array(64);
        format.decodeRow(first.codes, decoded, decodeScales(type, first.scales));
        expect(pack(decoded)).toEqual(first);
      }),
      { numRuns: 500 },
    );
  });

  it('mxfp4: the exponent of the largest magnitude less two, the nearest level, ties to even', () => {
    const values = new Float32Array(32);
    values.set([7, -5, 2.5, 0.25, 0.75, 1.25, -0.2, -0.3, 3.5, 4]);
    const bytes = encode('mxfp4', values);
    expect(bytes[0]).toBe(127);
    expect([...decode('mxfp4', bytes, 32).subarray(0, 10)]).toEqual([6, -4, 2, 0, 1, 1, 0, -0.5, 4, 4]);
  });

  it('int4_g32: a seventh of the largest magnitude is a step', () => {
    const values = new Float32Array(32);
    values.set([7, -7, 0.5, 1.5, -2.4, 6.6]);
    const [codes, scales] = [new Uint8Array(16), new Uint8Array(2)];
    quantFormat('int4_g32').encodeScaledRow!(values, codes, scales);
    expect([...scales]).toEqual([0x80, 0x3f]);
    const decoded = new Float32Array(32);
    quantFormat('int4_g32').decodeRow(codes, decoded, decodeScales('bf16', scales));
    expect([...decoded.subarray(0, 7)]).toEqual([7, -7, 0, 2, -2, 7, 0]);
  });

  it('q8_0 follows the reference rounding', () => {
    const values = new Float32Array(32);
    values.set([127, 1.5, -1.5, 2.5, -126.5, 0.49999997, -0.5]);
    const bytes = encode('q8_0', values);
    expect([...bytes.subarray(0, 2)]).toEqual([0x00, 0x3c]);
    expect([...new Int8Array(bytes.buffer, 2, 7)]).toEqual([127, 2, -2, 3, -127, 0, -1]);
  });

  it('q4_0 gives code 0 to the largest magnitude, the first of equals', () => {
    const values = new Float32Array(32);
    values.set([3, -8, 8, 7, -7, 0.5, -0.5]);
    const bytes = encode('q4_0', values);
    expect([...bytes.subarray(0, 2)]).toEqual([0x00, 0x3c]);
    expect([...bytes.subarray(2, 9)].map((byte) => byte & 15)).toEqual([11, 0, 15, 15, 1, 9, 8]);
    expect([
      ...encode(
        'q4_0',
        values.map((value) => -value),
      ).subarray(0, 2),
    ]).toEqual([0x00, 0xbc]);
  });

  // q8_0: half a step. q4_0 has eight steps down and seven up, so the far end may be a whole step off.
  it.each([
    ['q8_0', 1 / 254],
    ['q4_0', 1 / 8],
  ] as const)('%s stays near every value', (name, step) => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, min: -100, max: 100 }), { minLength: 32, maxLength: 32 }),
        (numbers) => {
          const largest = Math.max(...numbers.map(Math.abs));
          const decoded = decode(name, encode(name, Float32Array.from(numbers)), 32);
          // The scale is rounded to a half: by 2^-11 of itself, by 2^-25 where it is subnormal.
          const bound = largest * (step + 2 ** -11) + 127 * 2 ** -25;
          for (const [i, value] of numbers.entries()) expect(Math.abs(decoded[i] - value)).toBeLessThanOrEqual(bound);
        },
      ),
      { numRuns: 500 },
    );
  });

  it.each(['q8_0', 'q4_0'] as const)('%s refuses what it cannot hold', (name) => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e30]) {
      const values = new Float32Array(64).fill(1);
      values[40] = bad;
      expect(() => encode(name, values)).toThrow(expect.objectContaining({ code: 'MODEL_INVALID' }));
    }
  });
});

describe('the table of formats', () => {
  it('knows every name; all but those with scales apart are types of GGUF', () => {
    for (const name of FORMAT_NAMES) {
      const format = quantFormat(name);
      expect(format.name).toBe(name);
      expect(isFormatName(name)).toBe(true);
      expect(format.ggml === undefined).toBe(['f8_e4m3', 'mxfp4_g32', 'int4_g32'].includes(name));
    }
    for (const name of ['tq1_0', 'toString', '__proto__', '']) {
      expect(isFormatName(name)).toBe(false);
      expect(() => quantFormat(name)).toThrow(expect.objectContaining({ code: 'FORMAT_UNSUPPORTED' }));
    }
  });

  it('refuses rows of the wrong size', () => {
    for (const name of FORMAT_NAMES) {
      const format = quantFormat(name);
      const out = new Float32Array(format.blockSize);
      const short = new Uint8Array(format.blockBytes - 1);
      expect(() => format.decodeRow(short, out, new Float32Array(1))).toThrow(TandemError);
      const { encodeRow } = format;
      if (encodeRow !== undefined) expect(() => encodeRow(out, short)).toThrow(TandemError);
    }
  });
});
