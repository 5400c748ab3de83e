/**
 * Rotary frequencies. A pair i of a head's `width` rotated columns turns by position · frequencies[i]; cos and sin are
 * multiplied by `magnitude`. Scalings: linear (positions divided), YaRN (arXiv:2309.00071) and Llama 3's bands.
 */
import type { ConfigReader } from '../config-reader.ts';
import { ROPE_FACTORS } from '../weights.ts';

export interface Yarn {
  readonly type: 'yarn';
  readonly factor: number;
  readonly originalContext: number;
  /** Rotations over the original context above which a frequency stays, below which it is divided by `factor`. */
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Whether the ends of the ramp are whole pairs (default); gpt-oss keeps them where they fall. */
  readonly truncate?: boolean;
  /** Multiplies cos and sin. */
  readonly magnitude: number;
  /** DeepSeek multiplies the softmax scale by its square. */
  readonly attention: number;
}

export interface Llama3Bands {
  readonly type: 'llama3';
  readonly factor: number;
  readonly lowFactor: number;
  readonly highFactor: number;
  readonly originalContext: number;
}

export type RopeScaling =
  | { readonly type: 'none' }
  | { readonly type: 'linear'; readonly factor: number }
  /** GGUF keeps Llama 3's bands as one divisor per frequency. */
  | { readonly type: 'factors'; readonly factors: readonly number[] }
  | Yarn
  | Llama3Bands;

export interface Rope {
  readonly base: number;
  readonly scaling: RopeScaling;
}

/** YaRN's m(s) = 1 + 0.1 · s · ln(factor). */
function yarnMagnitude(factor: number, scale: number): number {
  return factor <= 1 ? 1 : 1 + 0.1 * scale * Math.log(factor);
}

/** Frequencies of `width` rotated columns: width / 2 of them. */
export function ropeFrequencies(width: number, { base, scaling }: Rope): { frequencies: number[]; magnitude: number } {
  const plain = Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));
  switch (scaling.type) {
    case 'none':
      return { frequencies: plain, magnitude: 1 };
    case 'linear':
      return { frequencies: plain.map((frequency) => frequency / scaling.factor), magnitude: 1 };
    case 'factors':
      return { frequencies: plain.map((frequency, i) => frequency / scaling.factors[i]), magnitude: 1 };
    case 'llama3':
      return { frequencies: plain.map((frequency) => llama3Frequency(frequency, scaling)), magnitude: 1 };
    case 'yarn':
      return { frequencies: yarnFrequencies(plain, width, base, scaling), magnitude: scaling.magnitude };
  }
}

/** Ramp from the pair that turns betaFast times in the original context (kept) to betaSlow (interpolated). */
function yarnFrequencies(plain: number[], width: number, base: number, yarn: Yarn): number[] {
  const pairOf = (rotations: number) =>
    (width * Math.log(yarn.originalContext / (rotations * 2 * Math.PI))) / (2 * Math.log(base));
  const [first, last] = [pairOf(yarn.betaFast), pairOf(yarn.betaSlow)];
  const { truncate = true } = yarn;
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, width - 1);
  return plain.map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - low) / Math.max(high - low, 0.001), 0), 1);
    return (frequency / yarn.factor) * interpolated + frequency * (1 - interpolated);
  });
}

/** Wavelengths shorter than originalContext / highFactor stay, longer than originalContext / lowFactor are divided. */
export function llama3Frequency(frequency: number, bands: Llama3Bands): number {
  const rotations = (bands.originalContext * frequency) / (2 * Math.PI);
  if (rotations > bands.highFactor) return frequency;
  if (rotations < bands.lowFactor) return frequency / bands.factor;
  const kept = (rotations - bands.lowFactor) / (bands.highFactor - bands.lowFactor);
  return ((1 - kept) * frequency) / bands.factor + kept * frequency;
}

/** Reads base and scaling; `width` is the number of rotated columns, `truncate` YaRN's where the description is silent. */
export async function readRope(reader: ConfigReader, width: number, truncate = true): Promise<Rope> {
  // transformers 5 writes `rope_parameters` where earlier ones wrote `rope_theta` and `rope_scaling`.
  const group = reader.has({ huggingface: 'rope_parameters' }) ? 'rope_parameters' : 'rope_scaling';
  const nested = 'rope_parameters.rope_theta';
  const theta = reader.has({ huggingface: nested }) ? nested : 'rope_theta';
  const base = reader.real({ huggingface: theta, gguf: 'rope.freq_base' }, 10_000);
  if (reader.isGguf && reader.checkpoint.tensors.has(ROPE_FACTORS))
    return { base, scaling: await readFactors(reader, width) };
  const field = (name: string, gguf = name) => ({ huggingface: `${group}.${name}`, gguf: `rope.scaling.${gguf}` });
  const typeField = field(reader.has(field('rope_type')) ? 'rope_type' : 'type', 'type');
  const type = reader.oneOf(typeField, ['none', 'default', 'linear', 'yarn', 'llama3'], 'none');
  if (type === 'none' || type === 'default') {
    const divisor = reader.realOptional({ gguf: 'rope.scale_linear' }) ?? 1; // files of 2023
    return { base, scaling: divisor === 1 ? { type: 'none' } : { type: 'linear', factor: divisor } };
  }
  const factor = reader.real(field('factor'));
  if (type === 'linear') return { base, scaling: { type, factor } };
  const context = reader.count(
    { huggingface: 'max_position_embeddings', gguf: 'context_length' },
    { maximum: 2 ** 31 },
  );
  const originalContext = reader.count(field('original_max_position_embeddings', 'original_context_length'), {
    default: context,
    maximum: 2 ** 31,
  });
  if (type === 'llama3') {
    const [lowFactor, highFactor] = [reader.real(field('low_freq_factor')), reader.real(field('high_freq_factor'))];
    reader.expect(highFactor > lowFactor, 'high_freq_factor exceeds low_freq_factor', `${highFactor} and ${lowFactor}`);
    return { base, scaling: { type, factor, lowFactor, highFactor, originalContext } };
  }
  const betaFast = reader.real(field('beta_fast', 'yarn_beta_fast'), 32);
  const betaSlow = reader.real(field('beta_slow', 'yarn_beta_slow'), 1);
  const yarn = {
    type,
    factor,
    originalContext,
    betaFast,
    betaSlow,
    truncate: reader.flag(field('truncate'), truncate),
  } as const;
  if (reader.isGguf) {
    // The key holds 0.1 · mscale_all_dim already.
    const multiplier = reader.realOptional(field('yarn_log_multiplier'), { zero: true }) ?? 0;
    const attention = yarnMagnitude(factor, multiplier * 10);
    const magnitude = reader.real(field('attn_factor'), 1) * yarnMagnitude(factor, 1);
    return { base, scaling: { ...yarn, attention, magnitude } };
  }
  const attention = yarnMagnitude(factor, reader.realOptional(field('mscale_all_dim'), { zero: true }) ?? 0);
  const ratio = yarnMagnitude(factor, reader.realOptional(field('mscale'), { zero: true }) ?? 1) / attention;
  return { base, scaling: { ...yarn, attention, magnitude: reader.real(field('attention_factor'), ratio) } };
}

/** Llama 3 in GGUF: `rope_freqs.weight` f32 [width / 2]. */
async function readFactors(reader: ConfigReader, width: number): Promise<RopeScaling> {
  const tensor = reader.checkpoint.tensors.get(ROPE_FACTORS)!;
  const found = `it is ${tensor.shape.join(' × ')} ${tensor.format}`;
  reader.expect(tensor.format === 'f32' && tensor.bytes === width * 2, `${ROPE_FACTORS} is ${width / 2} f32`, found);
  const bytes = await reader.checkpoint.readTensor(ROPE_FACTORS);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const factors = Array.from({ length: width / 2 }, (_, i) => view.getFloat32(i * 4, true));
  const positive = factors.every((factor) => factor > 0 && Number.isFinite(factor));
  reader.expect(positive, `${ROPE_FACTORS} holds positive numbers`, factors.join(' '));
  return { type: 'factors', factors };
}

/** The context a model was made for: YaRN files may still name the unscaled one. */
export function ropeContext(context: number, { scaling }: Rope): number {
  return scaling.type === 'yarn' ? Math.max(context, Math.round(scaling.originalContext * scaling.factor)) : context;
}
