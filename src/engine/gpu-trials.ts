/**
 * All kernels of a GPU tried on small random models: every weight format and cache type, through the architectures whose steps differ
 * most. For `tandem doctor --gpu`, and for cards that nobody has seen yet; a model that is loaded is checked anyway (gpu-check.ts).
 */
import type { PrepareOptions } from '../backend/backend.ts';
import { nativeBackend } from '../backend/native/backend.ts';
import { type CheckedKind, checkKinds } from '../backend/self-check/check.ts';
import { stepKinds } from '../backend/self-check/kinds.ts';
import { wholePassFailure } from '../backend/self-check/whole-pass.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { FormatName } from '../formats/dtype.ts';
import { openGguf } from '../formats/gguf.ts';
import { writeGguf } from '../formats/gguf-writer.ts';
import { openHuggingFace, SINGLE_FILE } from '../formats/huggingface.ts';
import { memoryFolder, memorySinkFolder } from '../formats/memory-source.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { writeSafetensors } from '../formats/safetensors-writer.ts';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { QUANT_MIXES, type QuantMix } from '../models/quant-mix.ts';
import { randomTensor } from '../models/random-tensor.ts';
import { synthesize } from '../models/synthesize.ts';
import { FOLDER_FORMATS, type FolderFormat, synthesizeFolder } from '../models/synthesize-folder.ts';
import type { HuggingFaceConfig, SyntheticTensor } from '../models/synthetic.ts';
import { lowerBoth } from '../placement/phases.ts';
import { parseRules } from '../placement/rules-file.ts';
import { KV_TYPES, type KvType, PAGE_TOKENS } from '../program/program.ts';

/** A small model of random weights. */
export interface GpuTrial {
  /** `latent attention, q4_k, cache bf16`. */
  readonly name: string;
  readonly architecture: keyof typeof ARCHITECTURES;
  /** Of all its matrices, or of those that such files have in it. */
  readonly format: FormatName;
  readonly kvType: KvType;
}

export interface TrialResult {
  readonly trial: GpuTrial;
  /** Kinds that no trial before had. */
  readonly kinds: readonly CheckedKind[];
  /** What kept it from being tried, or is wrong with a whole pass. */
  readonly failure?: string;
}

const SMALL = { vocab_size: 1024, hidden_size: 512, intermediate_size: 768, moe_intermediate_size: 256, max_position_embeddings: 1024 }; // biome-ignore format: sizes

/** Attention in its own size of head, all else small. */
const ARCHITECTURES = {
  'latent attention': {
    ...PUBLIC_CONFIGS['deepseek-v3'],
    ...SMALL,
    num_hidden_layers: 3,
    first_k_dense_replace: 1,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    q_lora_rank: 256,
    n_routed_experts: 16,
    n_group: 4,
    topk_group: 2,
    num_experts_per_tok: 4,
  },
  'grouped attention': {
    ...PUBLIC_CONFIGS['qwen3-30b-a3b'],
    ...SMALL,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    num_experts: 8,
    num_experts_per_tok: 2,
  },
  'windows and sinks': {
    ...PUBLIC_CONFIGS['gpt-oss-20b'],
    ...SMALL,
    intermediate_size: 512,
    num_hidden_layers: 2,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    num_local_experts: 4,
    num_experts_per_tok: 2,
  },
} as const satisfies Readonly<Record<string, HuggingFaceConfig>>;

const LIMITS = { pages: 6, maxRows: 160, maxOutputs: 8 };

/** Every format once, every type of cache under every kind of attention. */
export function gpuTrials(): GpuTrial[] {
  const trial = (architecture: GpuTrial['architecture'], format: FormatName, kvType: KvType): GpuTrial => ({
    name: `${architecture}, ${format}, cache ${kvType}`,
    architecture,
    format,
    kvType,
  });
  const formats = QUANT_MIXES.filter((mix) => mix !== 'q4_k_m');
  return [
    ...formats.map((format) => trial('latent attention', format, 'bf16')),
    ...FOLDER_FORMATS.map((format) => trial('latent attention', format, 'bf16')),
    trial('windows and sinks', 'mxfp4_g32', 'bf16'),
    ...KV_TYPES.flatMap((kvType) => [
      trial('latent attention', 'q8_0', kvType),
      trial('grouped attention', 'q8_0', kvType),
      trial('windows and sinks', 'mxfp4', kvType),
    ]),
  ];
}

/** One after the other on `device`; a card that was lost fails all that follow. */
export async function* tryGpu(
  device: string,
  trials: readonly GpuTrial[],
  options: Pick<PrepareOptions, 'signal'> = {},
): AsyncGenerator<TrialResult> {
  const seen = new Set<string>();
  for (const trial of trials) {
    options.signal?.throwIfAborted();
    try {
      yield await tryOne(device, trial, seen, options);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      yield { trial, kinds: [], failure: (error as Error).message.replace(/^\[\w+\] /, '') };
    }
  }
}

async function tryOne(
  device: string,
  trial: GpuTrial,
  seen: Set<string>,
  { signal }: Pick<PrepareOptions, 'signal'>,
): Promise<TrialResult> {
  const checkpoint = await checkpointOf(trial);
  const { program } = await buildProgram(checkpoint, {
    kvType: trial.kvType,
    contextLength: LIMITS.pages * PAGE_TOKENS,
  });
  const machine = { device: 'cpu', devices: [{ name: 'cpu' }, { name: device }] } as const;
  const placed = lowerBoth(program, machine, { rules: parseRules([{ place: { device } }]) });
  const kinds = stepKinds(placed).filter(({ key }) => !seen.has(key));
  await using executable = await nativeBackend().prepare(placed, checkpoint, { ...LIMITS, signal });
  for (const { key } of kinds) seen.add(key);
  const checked = await checkKinds({ executable, checkpoint, limits: LIMITS, kinds, stopAtFailure: false, signal });
  // A pass over steps that are wrong says nothing more.
  const right = checked.every(({ failure }) => failure === undefined);
  const failure = right ? await wholePassFailure({ executable, limits: LIMITS, signal }) : undefined;
  return { trial, kinds: checked, ...(failure !== undefined && { failure }) };
}

/** In memory. */
async function checkpointOf({ architecture, format }: GpuTrial): Promise<Checkpoint> {
  const config = ARCHITECTURES[architecture];
  const sink = memorySinkFolder('a random model');
  const folderFormat = format === 'mxfp4_g32' ? 'bf16' : FOLDER_FORMATS.find((each) => each === format);
  const asFolder = format === 'mxfp4_g32' || (folderFormat !== undefined && !QUANT_MIXES.includes(format as QuantMix));
  if (asFolder) {
    const { files, tensors } = await synthesizeFolder(config, { format: folderFormat as FolderFormat });
    await writeSafetensors(sink, SINGLE_FILE, tensors);
    return openHuggingFace(memoryFolder({ ...files, ...sink.files }));
  }
  const content = await synthesize(config, { name: 'a random model', mix: format as QuantMix });
  const tensors = content.tensors.map((tensor) => {
    if (!takes(tensor, format)) return tensor;
    return { ...tensor, format, data: () => randomTensor({ ...tensor, format }, 1) };
  });
  const [file] = await writeGguf(sink, 'model.gguf', { ...content, tensors });
  return openGguf(memoryFolder(sink.files), file);
}

/** Matrices whose rows are whole blocks; routers and biases are floats in every file. */
function takes({ name, shape }: SyntheticTensor, format: FormatName): boolean {
  return (
    shape.length > 1 &&
    /\.weight$/.test(name) &&
    !name.includes('ffn_gate_inp') &&
    shape[shape.length - 1] % quantFormat(format).blockSize === 0
  );
}
