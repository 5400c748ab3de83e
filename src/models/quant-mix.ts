/**
 * Which format each tensor of a quantized GGUF file has, as llama.cpp's quantizer chooses (llama-quant.cpp, mid 2024: the
 * rules by which the public DeepSeek-V2-Lite file was made).
 */
import type { FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';

/** `general.file_type` by mix. */
export const FILE_TYPE = {
  f32: 0,
  f16: 1,
  bf16: 32,
  q8_0: 7,
  q6_k: 18,
  q5_k: 16,
  q5_1: 9,
  q5_0: 8,
  q4_k_m: 15,
  q4_k: 14,
  q4_1: 3,
  q4_0: 2,
  iq4_nl: 25,
  iq4_xs: 30,
  mxfp4: 38,
  q3_k: 12,
  q2_k: 10,
  iq3_s: 26,
  iq3_xxs: 23,
  iq2_s: 28,
  iq2_xs: 20,
  iq2_xxs: 19,
  iq1_m: 31,
  iq1_s: 24,
} as const satisfies Readonly<Record<string, number>>;

export type QuantMix = keyof typeof FILE_TYPE;

/**
 * `q4_k_m`: as llama.cpp mixes it. `mxfp4`: the experts, all else q8_0. Below four bits: the experts, the down matrices of
 * the first layers a step better, all else as in `q4_k_m`, as dynamic files of very large models are made. Others: every
 * matrix but the head.
 */
export const QUANT_MIXES = Object.keys(FILE_TYPE) as readonly QuantMix[];

/** Formats below four bits, and the next better one. */
const DYNAMIC: Partial<Record<QuantMix, FormatName>> = {
  q3_k: 'q4_k',
  q2_k: 'q3_k',
  iq3_s: 'q4_k',
  iq3_xxs: 'q4_k',
  iq2_s: 'iq3_s',
  iq2_xs: 'iq3_xxs',
  iq2_xxs: 'iq3_xxs',
  iq1_m: 'iq2_xs',
  iq1_s: 'iq2_xxs',
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
  return fallback(wantedFormat(mix, name, model), shape[shape.length - 1]);
}

function wantedFormat(mix: QuantMix, name: string, model: MixContext): FormatName {
  if (mix === 'q4_k_m') return q4KM(name, model);
  const better = DYNAMIC[mix];
  if (better !== undefined) {
    if (!isRouted(name, model)) return q4KM(name, model);
    return name.includes('ffn_down') && layerOf(name) < model.layers / 5 ? better : (mix as FormatName);
  }
  if (mix === 'mxfp4') return isRouted(name, model) ? mix : 'q8_0';
  return isHead(name, model) && quantFormat(mix).blockSize > 1 && mix !== 'q8_0' ? 'q6_k' : mix;
}

/** Routed experts; in a dense model its feed-forward layers. */
function isRouted(name: string, { experts }: MixContext): boolean {
  return name.includes(experts > 0 ? '_exps.' : '.ffn_');
}

function layerOf(name: string): number {
  return Number(/^blk\.(\d+)\./.exec(name)?.[1] ?? -1);
}

function isHead(name: string, { tied }: MixContext): boolean {
  return name === 'output.weight' || (tied && name === 'token_embd.weight');
}

function q4KM(name: string, model: MixContext): FormatName {
  if (isHead(name, model)) return 'q6_k';
  const layer = layerOf(name);
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
  if (quantFormat(format).blockSize === 256) return fallback(narrower[format] ?? 'iq4_nl', columns);
  return 'f16';
}
