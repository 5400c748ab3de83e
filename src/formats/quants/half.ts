/**
 * Small floats in bits: IEEE half (f16), bfloat16 and the e4m3 of FP8 checkpoints, to and from f32.
 * All conversions are exact or rounded to nearest, ties to even; NaN stays NaN. Bytes are little-endian, as is every
 * machine Tandem runs on. `native/quant/half.h` is the same code in C++.
 */

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** The bits of a value rounded to f32. */
export function floatBits(value: number): number {
  scratchFloat[0] = value;
  return scratchBits[0];
}

/** f32 bits of each of the 65,536 halves. A subnormal half is a normal f32. */
export const F16_BITS = f16Table();
/** f32 value of each of the 65,536 halves (same memory as `F16_BITS`). */
export const F16_VALUES = new Float32Array(F16_BITS.buffer);

function f16Table(): Uint32Array<ArrayBuffer> {
  const table = new Uint32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const sign = ((half & 0x8000) << 16) >>> 0;
    const exponent = (half >> 10) & 31;
    const mantissa = half & 0x3ff;
    if (exponent === 31) table[half] = (sign | 0x7f800000 | (mantissa << 13)) >>> 0;
    else if (exponent !== 0) table[half] = (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0;
    else table[half] = (sign | floatBits(mantissa * 2 ** -24)) >>> 0;
  }
  return table;
}

/** The half stored at `offset` of `bytes`, as f32. */
export function readF16(bytes: Uint8Array, offset: number): number {
  return F16_VALUES[bytes[offset] | (bytes[offset + 1] << 8)];
}

/** f32 bits → half bits. Values of 65520 and more become infinite; NaN keeps its sign and upper payload, quiet. */
export function f32BitsToF16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    const rebiased = magnitude - 0x38000000;
    return sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13);
  }
  if (magnitude <= 0x33000000) return sign; // up to 2^-25, half of the least subnormal
  const shift = 126 - (magnitude >>> 23); // 14 … 24: how many bits fall below the least subnormal
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  return sign | (rest > middle || (rest === middle && (kept & 1) === 1) ? kept + 1 : kept);
}

/** A number, first rounded to f32, → half bits. */
export function f32ToF16(value: number): number {
  return f32BitsToF16(floatBits(value));
}

/** f32 bits → bfloat16 bits. */
export function f32BitsToBf16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** f32 bits → e4m3 byte: beyond ±448 the largest of that sign. */
export function f32BitsToE4m3(bits: number): number {
  const sign = (bits >>> 24) & 0x80;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7f;
  if (magnitude >= 0x43e00000) return sign | 0x7e;
  if (magnitude < 0x3c800000) {
    // Below 2^-6: steps of 2^-9, rounded by an addition that leaves no room for a fraction.
    scratchBits[0] = magnitude;
    return sign | (floatBits(scratchFloat[0] * 512 + 8388608) & 15);
  }
  const rebiased = magnitude - (120 << 23);
  return sign | ((rebiased + 0x7ffff + ((rebiased >>> 20) & 1)) >>> 20);
}

/**
 * Value of each e4m3 byte (the "fn" variant of the OCP FP8 paper, arXiv 2209.05433): sign, 4 exponent bits with
 * bias 7, 3 mantissa bits; exponent 0 is subnormal; no infinities; 0x7f and 0xff are NaN; largest 448.
 */
export const E4M3_VALUES = e4m3Table();

function e4m3Table(): Float32Array {
  const table = new Float32Array(256);
  for (let code = 0; code < 256; code++) {
    const exponent = (code >> 3) & 15;
    const mantissa = code & 7;
    const magnitude = exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10);
    table[code] = (code & 0x7f) === 0x7f ? Number.NaN : code & 0x80 ? -magnitude : magnitude;
  }
  return table;
}
