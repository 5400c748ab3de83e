/**
 * What `tandem plan` can be asked about, as sizes: a file or folder, a description (`config.json` or a known model) in
 * standard mixes, a repository on a hub. Headers only, no weight is read or downloaded.
 */
import { existsSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { TandemError } from '../../errors.ts';
import type { Checkpoint } from '../../formats/checkpoint.ts';
import { openCheckpoint } from '../../formats/open.ts';
import { cachedModels, findCached } from '../../hub/models.ts';
import { type ModelReference, toReference } from '../../hub/reference.ts';
import { findModel, openVariant } from '../../hub/remote.ts';
import { hubSettings } from '../../hub/settings.ts';
import { chooseVariant } from '../../hub/variants.ts';
import { buildProgram } from '../../models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../../models/public-configs.ts';
import type { QuantMix } from '../../models/quant-mix.ts';
import { headerCheckpoint } from '../../models/synthesize.ts';
import { type HuggingFaceConfig, headerOnly, huggingFaceTensors, syntheticModel } from '../../models/synthetic.ts';
import { type Sizes, sizesOf } from '../../placement/sizes.ts';
import type { Program } from '../../program/program.ts';
import { configOf, descriptionOf } from '../description.ts';

/** One quantization: its sizes, or why there are none. */
export interface SizedQuant {
  readonly quant: string;
  /** Of its files; absent where there is none. */
  readonly fileBytes?: number;
  readonly program?: Program;
  readonly sizes?: Sizes;
  readonly problem?: string;
}

export interface Sized {
  readonly model: string;
  /** `file`: it is here; `description`: no weights exist; `hub`: it can be pulled. */
  readonly source: 'file' | 'description' | 'hub';
  readonly quants: readonly SizedQuant[];
}

export interface CandidateOptions {
  readonly kvType?: 'bf16' | 'f32';
  readonly offline?: boolean;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Mixes that people publish, the most bits first. */
const STANDARD: readonly QuantMix[] = [
  'bf16',
  'q8_0',
  'q6_k',
  'q5_k',
  'q4_k_m',
  'iq4_xs',
  'q3_k',
  'iq3_xxs',
  'q2_k',
  'iq2_xxs',
  'iq1_s',
];

/** Errors of `openCheckpoint`, `findModel` and `buildProgram`; of several quantizations each has its own. */
export async function candidatesOf(given: string, options: CandidateOptions): Promise<Sized> {
  const description = descriptionOf(given);
  if (description !== undefined) return described(description, options);
  if (existsSync(given) || /\.gguf$|^[./~]/.test(given)) return local(given, options); // says where there is none
  return remote(given, options);
}

async function local(path: string, options: CandidateOptions): Promise<Sized> {
  const checkpoint = await openCheckpoint(path);
  try {
    const model = await sized(checkpoint, options);
    const fileBytes = checkpoint.files.reduce((sum, { size }) => sum + size, 0);
    return {
      model: checkpoint.name,
      source: 'file',
      quants: [{ quant: mainFormat(model.sizes), fileBytes, ...model }],
    };
  } finally {
    await checkpoint.close();
  }
}

/** The format that holds the most bytes. */
function mainFormat({ matrices }: Sizes): string {
  const bytes = new Map<string, number>();
  for (const work of matrices) bytes.set(work.format, (bytes.get(work.format) ?? 0) + work.bytes);
  return [...bytes].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

async function described(given: string, options: CandidateOptions): Promise<Sized> {
  const config = await configOf(given);
  const published = await publishedQuant(config, given, options);
  const quants: SizedQuant[] = published ? [published] : [];
  const plain = { ...config, quantization_config: undefined };
  for (const mix of STANDARD) {
    const model = await sized(await headerCheckpoint(plain, { name: given, mix }), options);
    // More bits than a model was published with are only more bytes.
    if (model.sizes.weightBytes < (published?.sizes.weightBytes ?? Infinity)) quants.push({ quant: mix, ...model });
  }
  return { model: nameOf(given), source: 'description', quants };
}

/** Of a known model its name, of a `config.json` that of its folder, of another file its own. */
function nameOf(given: string): string {
  return basename(given) === 'config.json' ? basename(dirname(resolve(given))) : basename(given, '.json');
}

/** A known model in the mix that most people take: as gpt-oss is published, else about five bits. */
export async function usualQuant(name: PublicModel): Promise<SizedQuant & { readonly program: Program }> {
  const config = PUBLIC_CONFIGS[name];
  const mix: QuantMix = config.model_type === 'gpt_oss' ? 'mxfp4' : 'q4_k_m';
  return { quant: mix, ...(await sized(await headerCheckpoint(config, { name, mix }), {})) };
}

/** As a description says that the weights are stored, where that is not bf16. */
async function publishedQuant(config: HuggingFaceConfig, given: string, options: CandidateOptions) {
  if (config.model_type === 'gpt_oss') {
    const checkpoint = await headerCheckpoint(config, { name: given, mix: 'mxfp4' });
    return { quant: 'mxfp4', ...(await sized(checkpoint, options)) };
  }
  const method = (config.quantization_config as { quant_method?: unknown } | undefined)?.quant_method;
  if (method !== 'fp8' && method !== 'compressed-tensors') return undefined;
  const [quant, how] = method === 'fp8' ? ['f8_e4m3', { fp8: 'f32' as const }] : ['int4_g32', { int4: true }];
  const tensors = huggingFaceTensors(await syntheticModel(config), how);
  return { quant, ...(await sized(headerOnly('huggingface', given, tensors, { config }), options)) };
}

/** Variants whose headers are read at once. */
const AT_ONCE = 4;

async function remote(given: string, options: CandidateOptions): Promise<Sized> {
  const reference = toReference(given);
  const settings = await hubSettings({ offline: options.offline });
  if (settings.offline) return cached(reference, settings.cache, options);
  const http = { signal: options.signal };
  const model = await findModel(reference, settings, http);
  const { quant } = reference;
  const wanted =
    quant === undefined && model.variants.length > 0
      ? model.variants
      : [chooseVariant(model.repository, model.variants, quant)];
  const quants: SizedQuant[] = new Array(wanted.length);
  let [next, done] = [0, 0];
  const work = async () => {
    for (let i = next++; i < wanted.length; i = next++) {
      const variant = wanted[i];
      const common = { quant: variant.name, fileBytes: variant.bytes };
      try {
        const checkpoint = await openVariant(model, variant, settings, http);
        try {
          quants[i] = { ...common, ...(await sized(checkpoint, options)) };
        } finally {
          await checkpoint.close();
        }
      } catch (error) {
        if (wanted.length === 1 || options.signal?.aborted) throw error;
        quants[i] = { ...common, problem: (error as Error).message };
      }
      options.onProgress?.(++done, wanted.length);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (quants.every(({ sizes }) => sizes === undefined))
    throw new TandemError('MODEL_UNSUPPORTED', {
      room: 'cli',
      rule: 'of one quantization at least the headers can be read',
      given: `${model.repository}: ${quants[0].problem}`,
    });
  return { model: model.repository, source: 'hub', quants: quants.reverse() };
}

/** Without network: the quantizations that were pulled. FILE_NOT_FOUND where there is none. */
async function cached(reference: ModelReference, folder: string, options: CandidateOptions): Promise<Sized> {
  const { repository, quant, revision } = reference;
  const all = quant === undefined && revision === undefined ? await cachedModels(folder) : [];
  const found = all.filter((model) => model.repository === repository);
  if (found.length === 0) found.push(await findCached(reference, folder));
  const quants: SizedQuant[] = [];
  for (const { path, variant } of found)
    quants.push({ ...(await local(path, options)).quants[0], quant: variant.name });
  return { model: repository, source: 'file', quants: quants.sort((a, b) => b.fileBytes! - a.fileBytes!) };
}

async function sized(
  checkpoint: Checkpoint,
  { kvType }: CandidateOptions,
): Promise<{ readonly program: Program; readonly sizes: Sizes }> {
  const { program } = await buildProgram(checkpoint, { kvType });
  return { program, sizes: sizesOf(program) };
}
