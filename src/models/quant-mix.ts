/**
 * Which format each tensor of a quantized GGUF file has, as llama.cpp's quantizer chooses (llama-quant.cpp, mid 2024: the
 * rules by which the public DeepSeek-V2-Lite file was made).
 */
import type { FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';

export const QUANT_MIXES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q6_k', 'q4_k_m'] as const;
export type QuantMix = (typeof QUANT_MIXES)[number];

/** `general.file_type` of a mix. */
export const FILE_TYPE: Readonly<Record<QuantMix, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q8_0: 7,
  q4_k_m: 15,
  q6_k: 18,
  bf16: 32,
};

/** Facts of the model that the choice depends on. */
export interface MixContext {
  readonly layers: number;
  readonly experts: number;
  /** Query heads per kv head; 1 for latent attention. */
  readonly groupSize: number;
  readonly tied: boolean;
}

/** Format of a tensor by its GGUF name and shape. */
export function mixFormat(mix: QuantMix, name: string, shape: readonly number[], model: MixContext): FormatName {
  const kept = shape.length === 1 || name.includes('ffn_gate_inp.') || !name.endsWith('.weight');
  if (kept || mix === 'f32') return 'f32';
  const wanted = mix === 'q4_k_m' ? q4KM(name, model) : mix === 'q4_0' && isHead(name, model) ? 'q6_k' : mix;
  return fallback(wanted, shape[shape.length - 1]);
}

function isHead(name: string, { tied }: MixContext): boolean {
  return name === 'output.weight' || (tied && name === 'token_embd.weight');
}

function q4KM(name: string, model: MixContext): FormatName {
  if (isHead(name, model)) return 'q6_k';
  const layer = Number(/^blk\.(\d+)\./.exec(name)?.[1] ?? -1);
  const better = layer >= 0 && moreBits(layer, model.layers);
  if (name.includes('attn_v.')) {
    if (model.experts === 8) return 'q8_0';
    if (better) return 'q6_k';
    return model.layers === 80 && model.groupSize === 8 ? 'q5_k' : 'q4_k';
  }
  if (name.includes('attn_k.') && model.experts === 8) return 'q8_0';
  if (name.includes('attn_output.') && model.experts === 8) return 'q5_k';
  return name.includes('ffn_down') && better ? 'q6_k' : 'q4_k';
}

/** The first and the last eighth of the layers, and every third between. */
function moreBits(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8);
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2;
}

/** Rows that are no multiple of 256 take a 32-block format. */
function fallback(format: FormatName, columns: number): FormatName {
  if (columns % quantFormat(format).blockSize === 0) return format;
  const narrower: Partial<Record<FormatName, FormatName>> = { q4_k: 'q5_0', q5_k: 'q5_1', q6_k: 'q8_0' };
  const next = narrower[format];
  return next === undefined ? 'f16' : fallback(next, columns);
}
