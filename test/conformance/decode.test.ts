/** Weight formats: every instruction set decodes to exactly the bits of the TypeScript decoders. */
import { describe, expect, it } from 'vitest';
import type { NativeBinding } from '../../src/backend/native/binding.ts';
import { FORMAT_NAMES, type FormatName, rowBytes } from '../../src/formats/dtype.ts';
import { EDGE_COLUMNS, edgeRows } from '../../src/formats/quants/edge-rows.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { nativeIsas, randomBlocks, randomScales } from './harness.ts';

const { isas, reason } = await nativeIsas();

async function binding(): Promise<NativeBinding> {
  return (await import('../../src/backend/native/load.ts')).loadNative();
}

function decodeHere(format: FormatName, bytes: Uint8Array, rows: number, columns: number, scales: Float32Array | null) {
  const codec = quantFormat(format);
  const size = rowBytes(codec, columns);
  const out = new Float32Array(rows * columns);
  const scaleColumns = codec.scaleBlock && Math.ceil(columns / codec.scaleBlock.columns);
  for (let r = 0; r < rows; r++) {
    const first = codec.scaleBlock && scaleColumns ? Math.floor(r / codec.scaleBlock.rows) * scaleColumns : 0;
    const ours = scales && scaleColumns ? scales.subarray(first, first + scaleColumns) : undefined;
    codec.decodeRow(bytes.subarray(r * size, (r + 1) * size), out.subarray(r * columns, (r + 1) * columns), ours);
  }
  return out;
}

/** The same bits; of NaN neither sign nor payload is specified. */
function expectSameBits(actual: Float32Array, expected: Float32Array): void {
  expect(actual.length).toBe(expected.length);
  const at = expected.findIndex((value, i) => !Object.is(value, actual[i]));
  if (at >= 0) expect.fail(`weight ${at} is ${actual[at]}, not ${expected[at]}`);
}

async function expectSame(isa: string, format: FormatName, bytes: Uint8Array, rows: number, columns: number) {
  const scales = quantFormat(format).scaleBlock ? randomScales(format, rows, columns, 5) : null;
  const native = (await binding()).decodeRows(format, bytes, rows, columns, scales, isa as 'scalar');
  expectSameBits(native, decodeHere(format, bytes, rows, columns, scales));
}

describe.skipIf(reason).each(isas)(`decode, %s ${reason ?? ''}`, (isa) => {
  it.each(FORMAT_NAMES)('%s: every code with every scale', async (format) => {
    const bytes = edgeRows(quantFormat(format));
    await expectSame(isa, format, bytes, bytes.length / rowBytes(quantFormat(format), EDGE_COLUMNS), EDGE_COLUMNS);
  });

  it.each(FORMAT_NAMES)('%s: random blocks, any number of them', async (format) => {
    const { blockSize } = quantFormat(format);
    for (let blocks = 1; blocks <= (blockSize === 1 ? 70 : 9); blocks++)
      await expectSame(isa, format, randomBlocks(format, 3, blocks * blockSize, blocks), 3, blocks * blockSize);
  });

  it.each(FORMAT_NAMES)('%s: bytes that no encoder would write', async (format) => {
    const { blockSize } = quantFormat(format);
    const columns = blockSize === 1 ? 257 : 2 * blockSize;
    const size = rowBytes(quantFormat(format), columns);
    let state = 12345;
    const bytes = Uint8Array.from({ length: 130 * size }, () => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return state >>> 16;
    });
    await expectSame(isa, format, bytes, 130, columns);
  });
});
