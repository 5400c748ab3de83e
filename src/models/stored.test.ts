/** Weights in several tensors: packed INT4, MXFP4 in blocks and scales, FP8 with scales of either type. */
import { describe, expect, test } from 'vitest';
import type { Checkpoint, TensorInfo } from '../formats/checkpoint.ts';
import { storedWeight } from './stored.ts';

const INT4 = { num_bits: 4, type: 'int', symmetric: true, group_size: 32, strategy: 'group' };

function checkpoint(tensors: Record<string, [format: string, ...shape: number[]]>, weights: object = INT4): Checkpoint {
  const entries = Object.entries(tensors).map(([name, [format, ...shape]]): [string, TensorInfo] => [
    name,
    { name, shape, format, file: 0, offset: 0, bytes: 0 },
  ]);
  return {
    kind: 'huggingface',
    name: 'folder',
    files: [],
    tensors: new Map(entries),
    metadata: new Map(),
    config: { quantization_config: { quant_method: 'compressed-tensors', config_groups: { group_0: { weights } } } },
    readTensor: () => Promise.reject(new Error('headers only')),
    close: async () => {},
  };
}

const packed = {
  'x.weight_packed': ['i32', 24, 16],
  'x.weight_scale': ['bf16', 24, 4],
  'x.weight_shape': ['i32', 2],
} as const satisfies Record<string, [string, ...number[]]>;

describe('packed INT4', () => {
  test('eight columns a word', () => {
    const stored = storedWeight(checkpoint(packed), 'x.weight')!;
    expect(stored).toMatchObject({ shape: [24, 128], format: 'int4_g32', also: ['x.weight_shape'] });
    expect(stored.tensor.name).toBe('x.weight_packed');
    expect(stored.scales?.name).toBe('x.weight_scale');
  });

  test.each([
    ['eight bits', packed, { ...INT4, num_bits: 8 }, 'num_bits of its weights is 8'],
    ['other groups', packed, { ...INT4, group_size: 128 }, 'group_size of its weights is 128'],
    ['zero points', packed, { ...INT4, symmetric: false }, 'symmetric of its weights is false'],
    ['f32 scales', { ...packed, 'x.weight_scale': ['f32', 24, 4] }, INT4, 'x.weight_scale is 24 × 4 f32'],
    ['scales of other groups', { ...packed, 'x.weight_scale': ['bf16', 24, 1] }, INT4, '24 × 1 bf16'],
    ['no scales', { 'x.weight_packed': ['i32', 24, 16] }, INT4, 'x.weight_packed is 24 × 16 i32'],
  ] as [string, typeof packed, object, string][])('%s are refused', (_, tensors, weights, message) => {
    expect(() => storedWeight(checkpoint(tensors, weights), 'x.weight')).toThrow(message);
  });
});

describe('MXFP4 in blocks and scales', () => {
  const blocks = { x_blocks: ['u8', 4, 24, 3, 16], x_scales: ['u8', 4, 24, 3] } as const;

  test('32 columns a block', () => {
    const stored = storedWeight(checkpoint(blocks as never), 'x')!;
    expect(stored).toMatchObject({ shape: [4, 24, 96], format: 'mxfp4_g32' });
    expect(stored.scales?.name).toBe('x_scales');
  });

  test('scales that do not fit are refused', () => {
    for (const scales of [undefined, ['u8', 4, 24, 2], ['bf16', 4, 24, 3]]) {
      const tensors = { x_blocks: blocks.x_blocks, ...(scales && { x_scales: scales }) };
      expect(() => storedWeight(checkpoint(tensors as never), 'x')).toThrow('MXFP4 has blocks');
    }
  });
});

describe('FP8', () => {
  test.each(['f32', 'bf16'])('%s scales', (format) => {
    const tensors = { 'x.weight': ['f8_e4m3', 200, 300], 'x.weight_scale_inv': [format, 2, 3] } as never;
    const stored = storedWeight(checkpoint(tensors), 'x.weight')!;
    expect(stored).toMatchObject({ format: 'f8_e4m3', shape: [200, 300] });
    expect(stored.scaleType).toBe(format === 'bf16' ? 'bf16' : undefined);
  });

  test('experts in one tensor have scales for each', () => {
    const scales = 'x.weight_scale_inv';
    const tensors = { 'x.weight': ['f8_e4m3', 5, 200, 300], [scales]: ['f32', 5, 2, 3] } as never;
    expect(storedWeight(checkpoint(tensors), 'x.weight')).toMatchObject({ shape: [5, 200, 300] });
    const flat = { 'x.weight': ['f8_e4m3', 5, 200, 300], [scales]: ['f32', 8, 3] } as never;
    expect(() => storedWeight(checkpoint(flat), 'x.weight')).toThrow('expected 5 × 2 × 3 f32');
  });

  test('scales of another type or shape are refused', () => {
    for (const scale of [
      ['f16', 2, 3],
      ['f32', 3, 2],
    ]) {
      const tensors = { 'x.weight': ['f8_e4m3', 200, 300], 'x.weight_scale_inv': scale } as never;
      expect(() => storedWeight(checkpoint(tensors), 'x.weight')).toThrow('128 × 128 blocks');
    }
  });
});

test('what is not there is undefined', () => {
  expect(storedWeight(checkpoint({}), 'x.weight')).toBeUndefined();
});
