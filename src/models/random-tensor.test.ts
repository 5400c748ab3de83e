import { describe, expect, test } from 'vitest';
import { FORMAT_NAMES, type FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { decodeScales } from '../formats/quants/scales.ts';
import { randomScales, randomTensor } from './random-tensor.ts';

function joined(parts: Iterable<Uint8Array>): Uint8Array {
  return Uint8Array.from([...parts].flatMap((part) => [...part]));
}

function scalesOf(format: FormatName, shape: number[]): Float32Array | undefined {
  const { scaleBlock } = quantFormat(format);
  if (scaleBlock === undefined) return undefined;
  return decodeScales(scaleBlock.type, joined(randomScales({ name: 'blk.0.ffn_up.weight', shape, format })));
}

function bytesOf(format: FormatName, shape: number[], seed = 1, name = 'blk.0.ffn_up.weight'): Uint8Array {
  const chunks = [...randomTensor({ name, shape, format }, seed)].map((chunk) => chunk.slice());
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

describe('random tensors', () => {
  test.each(FORMAT_NAMES)('%s: finite, centred, of the wanted size', (format) => {
    const shape = [64, 512];
    const bytes = bytesOf(format, shape);
    const quant = quantFormat(format);
    expect(bytes.length).toBe(((64 * 512) / quant.blockSize) * quant.blockBytes);
    const values = new Float32Array(64 * 512);
    const scales = scalesOf(format, shape);
    const { rows = 1, columns = 512 } = quant.scaleBlock ?? {};
    for (let row = 0; row < 64; row++) {
      const source = bytes.subarray((row * bytes.length) / 64, ((row + 1) * bytes.length) / 64);
      const first = Math.floor(row / rows) * (512 / columns);
      const out = values.subarray(row * 512, (row + 1) * 512);
      quant.decodeRow(source, out, scales?.subarray(first, first + 512 / columns));
    }
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    const rms = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    expect(rms * Math.sqrt(512)).toBeGreaterThan(0.6);
    expect(rms * Math.sqrt(512)).toBeLessThan(1.5);
    expect(Math.abs(mean) / rms).toBeLessThan(0.15);
  });

  test('the same seed gives the same bytes; another seed or name does not', () => {
    const bytes = bytesOf('q4_k', [16, 1024]);
    expect(bytesOf('q4_k', [16, 1024])).toEqual(bytes);
    expect(bytesOf('q4_k', [16, 1024], 2)).not.toEqual(bytes);
    expect(bytesOf('q4_k', [16, 1024], 1, 'blk.1.ffn_up.weight')).not.toEqual(bytes);
  });

  test('scales of tensors of their own: one for every block, ragged ones too', () => {
    expect(scalesOf('f8_e4m3', [3, 200, 300])).toHaveLength(3 * 2 * 3);
    expect(scalesOf('mxfp4_g32', [2, 8, 96])).toHaveLength(2 * 8 * 3);
    expect(scalesOf('q8_0', [8, 96])).toBeUndefined();
  });

  test('chunks end anywhere', () => {
    // 4000 rows of three blocks of 144 bytes: more than one chunk, the last one shorter.
    const chunks = [...randomTensor({ name: 'w', shape: [4000, 768], format: 'q4_k' }, 1)].map((chunk) => chunk.length);
    expect(chunks.length).toBeGreaterThan(1);
    expect(chunks.reduce((sum, length) => sum + length, 0)).toBe(4000 * 3 * 144);
  });
});
