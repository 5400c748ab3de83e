/**
 * A Hugging Face folder with a true model's shapes and random weights, in the formats that GGUF does not have: FP8 with
 * block scales as DeepSeek publishes it, INT4 in groups of 32 as Kimi-K2-Thinking is (its experts), and plain bf16; gpt-oss
 * with experts of MXFP4, as it is published, in any case.
 */
import { type FormatName, rowBytes } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { SCALE_BYTES } from '../formats/quants/scales.ts';
import type { SafetensorsTensor } from '../formats/safetensors-writer.ts';
import { randomScales, randomTensor } from './random-tensor.ts';
import { type HuggingFaceConfig, huggingFaceTensors, syntheticModel } from './synthetic.ts';
import { syntheticTokenizerFiles } from './synthetic-tokenizer.ts';

export const FOLDER_FORMATS = ['bf16', 'f8_e4m3', 'int4_g32'] as const;
export type FolderFormat = (typeof FOLDER_FORMATS)[number];

export interface SyntheticFolder {
  /** Small files by name: JSON. */
  readonly files: Readonly<Record<string, string>>;
  /** For `model.safetensors`. */
  readonly tensors: readonly SafetensorsTensor[];
}

export async function synthesizeFolder(
  config: HuggingFaceConfig,
  { format, seed = 1 }: { readonly format: FolderFormat; readonly seed?: number },
): Promise<SyntheticFolder> {
  const model = await syntheticModel(config);
  const tensors = huggingFaceTensors(model).flatMap(({ name, shape, format: plain }) => {
    if (plain === 'u8' || plain === 'i32') return [mxfp4(name, shape, seed)];
    const quantized = format !== 'bf16' && shape.length === 2 && isQuantized(name, format);
    return stored(name, shape, quantized ? format : plain, seed);
  });
  const described = { ...config, torch_dtype: 'bfloat16', ...QUANTIZATION[format] };
  const files = {
    'config.json': JSON.stringify(described, null, 2),
    ...syntheticTokenizerFiles(model.config.vocabSize),
  };
  return { files, tensors };
}

/** FP8: every matrix of the layers but the router. INT4: the routed experts. */
function isQuantized(name: string, format: FolderFormat): boolean {
  if (format === 'int4_g32') return /\.experts\.\d+\./.test(name);
  return name.includes('.layers.') && !name.includes('.gate.');
}

const QUANTIZATION: Readonly<Record<FolderFormat, object>> = {
  bf16: {},
  f8_e4m3: { quantization_config: { quant_method: 'fp8', fmt: 'e4m3', weight_block_size: [128, 128] } },
  int4_g32: {
    quantization_config: {
      quant_method: 'compressed-tensors',
      format: 'pack-quantized',
      config_groups: {
        group_0: { weights: { num_bits: 4, group_size: 32, symmetric: true, type: 'int', strategy: 'group' } },
      },
    },
  },
};

/** Blocks or scales of MXFP4 experts. */
function mxfp4(name: string, shape: readonly number[], seed: number): SafetensorsTensor {
  const blocks = name.endsWith('_blocks');
  const [experts, rows, groups] = shape;
  const whole = {
    name: name.replace(/_(blocks|scales)$/, ''),
    shape: [experts, rows, groups * 32],
    format: 'mxfp4_g32' as const,
  };
  const bytes = shape.reduce((product, length) => product * length, 1);
  return { name, dtype: 'U8', shape, bytes, data: () => (blocks ? randomTensor(whole, seed) : randomScales(whole)) };
}

/** A weight as the file has it: one tensor, or codes and scales. */
function stored(name: string, shape: readonly number[], format: FormatName, seed: number): SafetensorsTensor[] {
  const tensor = { name, shape, format };
  const [rows, columns] = shape.length > 1 ? shape.slice(-2) : [1, shape[0]];
  const bytes =
    (shape.reduce((product, length) => product * length, 1) / columns) * rowBytes(quantFormat(format), columns);
  const codes = { bytes, data: () => randomTensor(tensor, seed) };
  const { scaleBlock } = quantFormat(format);
  if (scaleBlock === undefined) return [{ name, dtype: DTYPE[format]!, shape, ...codes }];
  const blocks = [Math.ceil(rows / scaleBlock.rows), Math.ceil(columns / scaleBlock.columns)];
  const scales = {
    shape: blocks,
    bytes: blocks[0] * blocks[1] * SCALE_BYTES[scaleBlock.type],
    data: () => randomScales(tensor),
  };
  if (format === 'f8_e4m3')
    return [
      { name, dtype: 'F8_E4M3', shape, ...codes },
      { name: `${name}_scale_inv`, dtype: 'F32', ...scales },
    ];
  const sizes = new Uint8Array(Int32Array.from(shape).buffer);
  return [
    { name: `${name}_packed`, dtype: 'I32', shape: [rows, columns / 8], ...codes },
    { name: `${name}_scale`, dtype: 'BF16', ...scales },
    { name: `${name}_shape`, dtype: 'I32', shape: [2], bytes: 8, data: () => [sizes] },
  ];
}

const DTYPE: Partial<Record<FormatName, string>> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };
