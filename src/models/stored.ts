/**
 * How a checkpoint stores a weight: in a tensor of that name, or packed in several of related names. Reads headers only.
 *
 *   compressed-tensors   `x.weight_packed` i32 [N, K/8], `x.weight_scale` bf16 [N, K/32], `x.weight_shape`   → int4_g32
 *   gpt-oss              `x_blocks` u8 [E, N, K/32, 16], `x_scales` u8 [E, N, K/32]                          → mxfp4_g32
 *   block-scaled FP8     `x.weight` e4m3 [N, K], `x.weight_scale_inv` f32 or bf16 [⌈N/128⌉, ⌈K/128⌉]         → f8_e4m3
 *                        or experts in one: [E, N, K], [E, ⌈N/128⌉, ⌈K/128⌉]
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint, TensorInfo } from '../formats/checkpoint.ts';
import type { FormatName } from '../formats/dtype.ts';
import { isFormatName, quantFormat } from '../formats/quants/index.ts';

export interface Stored {
  /** The tensor with the codes. */
  readonly tensor: TensorInfo;
  /** The weight's shape, whatever the tensor's is. */
  readonly shape: readonly number[];
  /** A name of ours, or the tensor's own where Tandem does not decode it. */
  readonly format: string;
  readonly scales?: TensorInfo;
  readonly scaleType?: 'bf16';
  /** Further tensors that belong to it and hold nothing new. */
  readonly also: readonly string[];
}

/** The weight stored under this name; undefined where there is none. */
export function storedWeight(checkpoint: Checkpoint, name: string): Stored | undefined {
  const { tensors } = checkpoint;
  const tensor = tensors.get(name);
  if (tensor !== undefined) {
    const format = isFormatName(tensor.format) ? quantFormat(tensor.format) : undefined;
    const scaled = format?.scaleBlock === undefined ? {} : fp8Scales(checkpoint, tensor);
    return { tensor, shape: tensor.shape, format: tensor.format, also: [], ...scaled };
  }
  const packed = tensors.get(`${name}_packed`);
  if (packed !== undefined) return packedInt4(checkpoint, name, packed);
  const blocks = tensors.get(`${name}_blocks`);
  return blocks && blocksOfMxfp4(checkpoint, name, blocks);
}

function packedInt4(checkpoint: Checkpoint, name: string, tensor: TensorInfo): Stored {
  const group = int4Group(checkpoint);
  const scales = checkpoint.tensors.get(`${name}_scale`);
  const [rows, words] = tensor.shape;
  const expected = [rows, words / 4];
  if (
    group !== undefined ||
    tensor.format !== 'i32' ||
    tensor.shape.length !== 2 ||
    scales?.format !== 'bf16' ||
    !sameShape(scales.shape, expected)
  ) {
    const parts = [tensor, ...(scales ? [scales] : [])].map(describe).join(', ');
    throw new TandemError('FORMAT_UNSUPPORTED', {
      room: 'models',
      rule: 'packed integers are symmetric INT4 with a bf16 scale per 32 columns (compressed-tensors pack-quantized)',
      given: `${checkpoint.name}: ${group ?? parts}`,
      fix: 'use the original checkpoint or a GGUF file',
    });
  }
  const also = [`${name}_shape`].filter((each) => checkpoint.tensors.has(each));
  return { tensor, shape: [rows, words * 8], format: 'int4_g32' satisfies FormatName, scales, also };
}

/** What the description says against int4_g32; undefined where nothing. */
function int4Group({ config }: Checkpoint): string | undefined {
  const quantization = config?.quantization_config as Record<string, unknown> | undefined;
  if (quantization?.quant_method !== 'compressed-tensors')
    return `quantization is ${quantization?.quant_method ?? 'not described'}`;
  const groups = Object.values((quantization.config_groups ?? {}) as Record<string, { weights?: object }>);
  const wanted = { num_bits: 4, group_size: 32, symmetric: true, type: 'int', strategy: 'group' };
  for (const { weights } of groups)
    for (const [key, value] of Object.entries(wanted)) {
      const given = (weights as Record<string, unknown> | undefined)?.[key];
      if (given !== value) return `${key} of its weights is ${JSON.stringify(given)}`;
    }
  return groups.length > 0 ? undefined : 'it has no config_groups';
}

function blocksOfMxfp4(checkpoint: Checkpoint, name: string, tensor: TensorInfo): Stored {
  const scales = checkpoint.tensors.get(`${name}_scales`);
  const shape = tensor.shape.slice(0, -1);
  if (
    tensor.format !== 'u8' ||
    tensor.shape.at(-1) !== 16 ||
    scales?.format !== 'u8' ||
    !sameShape(scales.shape, shape)
  )
    throw invalid(
      'MXFP4 has blocks u8 [..., 16] and scales u8 of the outer dimensions',
      `${checkpoint.name}: ${[tensor, ...(scales ? [scales] : [])].map(describe).join(', ')}`,
    );
  const columns = shape[shape.length - 1] * 32;
  return {
    tensor,
    shape: [...shape.slice(0, -1), columns],
    format: 'mxfp4_g32' satisfies FormatName,
    scales,
    also: [],
  };
}

/** DeepSeek keeps f32 scales, Qwen bf16. */
function fp8Scales(checkpoint: Checkpoint, tensor: TensorInfo): Pick<Stored, 'scales' | 'scaleType'> {
  const block = quantFormat(tensor.format).scaleBlock!;
  const name = `${tensor.name}_scale_inv`;
  const scales = checkpoint.tensors.get(name);
  const [rows, columns] = tensor.shape.slice(-2);
  const expected = [...tensor.shape.slice(0, -2), Math.ceil(rows / block.rows), Math.ceil(columns / block.columns)];
  const rule = `an ${tensor.format} weight has f32 or bf16 scales of ${block.rows} × ${block.columns} blocks`;
  const fix = 'use a checkpoint with block-scaled FP8, as DeepSeek and Qwen publish';
  if (scales === undefined) throw invalid(rule, `${checkpoint.name} has no ${name}`, fix);
  if ((scales.format !== 'f32' && scales.format !== 'bf16') || !sameShape(scales.shape, expected))
    throw invalid(rule, `${describe(scales)}, expected ${expected.join(' × ')} f32`, fix);
  return scales.format === 'bf16' ? { scales, scaleType: 'bf16' } : { scales };
}

function describe({ name, shape, format }: TensorInfo): string {
  return `${name} is ${shape.join(' × ')} ${format}`;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((length, i) => length === b[i]);
}

function invalid(rule: string, given: string, fix = 'the file is damaged; fetch it again'): TandemError {
  return new TandemError('MODEL_INVALID', { room: 'models', rule, given, fix });
}
