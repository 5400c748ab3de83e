/**
 * A GGUF file with a true model's shapes and random weights: what its writer takes, or a checkpoint of headers.
 */
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { GgufTensor } from '../formats/gguf-writer.ts';
import type { BaseConfig } from './define-model.ts';
import { llama3Frequency, ropeFrequencies } from './layers/rope.ts';
import type { LlamaConfig } from './llama.ts';
import type { QuantMix } from './quant-mix.ts';
import { randomTensor } from './random-tensor.ts';
import { ggufTensors, type HuggingFaceConfig, headerOnly, type SyntheticTensor, syntheticModel } from './synthetic.ts';
import { ggufMetadata, type Metadata, plainMetadata } from './synthetic-metadata.ts';
import { ROPE_FACTORS } from './weights.ts';

export interface SynthesizeOptions {
  /** `general.name`. */
  readonly name: string;
  readonly mix: QuantMix;
  readonly seed?: number;
}

export interface SyntheticContent {
  readonly metadata: Metadata;
  readonly tensors: (GgufTensor & SyntheticTensor)[];
}

/** What `writeGguf` takes: metadata with a tokenizer, and tensors that make their bytes when asked. */
export async function synthesize(config: HuggingFaceConfig, options: SynthesizeOptions): Promise<SyntheticContent> {
  const { name, mix, seed = 1 } = options;
  const model = await syntheticModel(config);
  const tensors: SyntheticContent['tensors'] = ggufTensors(model, config, mix).map((tensor) => ({
    ...tensor,
    data: () => randomTensor(tensor, seed),
  }));
  const factors = ropeFactorTensor(model.config);
  if (factors !== undefined) tensors.push(factors);
  return { metadata: ggufMetadata(name, model, mix), tensors };
}

/** The same model as a checkpoint without a file: its headers, and the bytes of any tensor when asked. */
export async function headerCheckpoint(config: HuggingFaceConfig, options: SynthesizeOptions): Promise<Checkpoint> {
  const { metadata, tensors } = await synthesize(config, options);
  const read = async (name: string) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of tensors.find((tensor) => tensor.name === name)!.data()) chunks.push(chunk.slice());
    const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  };
  return headerOnly('gguf', options.name, tensors, { metadata: plainMetadata(metadata), read });
}

/** Llama 3's bands as GGUF has them: divisors of the plain frequencies. undefined for other models. */
export function ropeFactorTensor(config: BaseConfig): (GgufTensor & SyntheticTensor) | undefined {
  const { attention } = config as Partial<LlamaConfig>;
  const scaling = attention?.rope.scaling;
  if (attention === undefined || scaling?.type !== 'llama3') return undefined;
  const plain = ropeFrequencies(attention.headSize, { base: attention.rope.base, scaling: { type: 'none' } });
  const factors = Float32Array.from(plain.frequencies, (frequency) => frequency / llama3Frequency(frequency, scaling));
  const data = () => [new Uint8Array(factors.slice().buffer)];
  return { name: ROPE_FACTORS, shape: [factors.length], format: 'f32', data };
}
