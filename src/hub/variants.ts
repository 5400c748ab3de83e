/**
 * What can be chosen in a repository: each quantization of GGUF files (one file, or a split set, also in a folder of its
 * own) and the safetensors model. A pure function of names and sizes, the same for a listing of the hub and for a cache.
 */
import { TandemError } from '../errors.ts';
import { parseShardName } from '../formats/gguf-types.ts';
import { INDEX_FILE, SINGLE_FILE } from '../formats/huggingface.ts';

export interface SizedFile {
  /** Path in the repository, with slashes. */
  readonly path: string;
  readonly size: number;
}

export interface Variant<File extends SizedFile = SizedFile> {
  /** `Q4_K_M`, `UD-Q2_K_XL`, `BF16` …, `safetensors`, or the name of a file that names no quantization. */
  readonly name: string;
  readonly kind: 'gguf' | 'safetensors';
  /** All files of it: shards in order; of safetensors also config and tokenizer. */
  readonly files: readonly File[];
  /** Bytes of the weights. */
  readonly bytes: number;
  /** False: shards of the set are missing. */
  readonly complete: boolean;
}

const QUANT =
  /(?:^|[-._ ])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32|FP8))(?=$|[-._ ])/gi;
/** GGUF files that are no language model: vision encoders, importance matrices, drafts. */
const BESIDES = /(?:^|[-_./])(?:mmproj|imatrix|draft)(?:$|[-_.])/i;
/** Beside safetensors: what configures, tokenizes and renders. */
const COMPANIONS =
  /^(?:[\w.-]+\.json|tokenizer\.model|tiktoken\.model|merges\.txt|vocab\.txt|[\w.-]+\.jinja|[\w.-]+\.tiktoken)$/;
/** Weights twice, in other layouts, or none of a language model. */
const OTHER_WEIGHTS = /^(?:consolidated|adapter|optimizer|training|flax|tf)_?[\w.-]*$/i;

/** Variants that a message lists. */
const MOST_NAMED = 100;

/** Smallest first; safetensors last. */
export function variantsOf<File extends SizedFile>(files: readonly File[]): Variant<File>[] {
  const sets = new Map<string, { stem: string; count: number; files: File[] }>();
  for (const file of files) {
    if (!file.path.endsWith('.gguf') || BESIDES.test(baseName(file.path))) continue;
    const shard = parseShardName(file.path);
    const stem = shard?.stem ?? file.path.slice(0, -'.gguf'.length);
    const key = `${stem} ${shard?.count ?? 0}`;
    const set = sets.get(key) ?? { stem, count: shard?.count ?? 1, files: [] };
    set.files.push(file);
    sets.set(key, set);
  }
  const named = [...sets.values()].map((set) => ({ set, quant: quantOf(set.stem) }));
  const count = new Map<string | undefined, number>();
  for (const { quant } of named) count.set(quant, (count.get(quant) ?? 0) + 1);
  const variants = named.map(({ set, quant }): Variant<File> => {
    return {
      name: quant !== undefined && count.get(quant) === 1 ? quant : baseName(set.stem),
      kind: 'gguf',
      files: set.files.sort((a, b) => (a.path < b.path ? -1 : 1)),
      bytes: sum(set.files),
      complete: set.files.length === set.count,
    };
  });
  variants.sort((a, b) => a.bytes - b.bytes);
  const safetensors = safetensorsOf(files);
  return safetensors === undefined ? variants : [...variants, safetensors];
}

function safetensorsOf<File extends SizedFile>(files: readonly File[]): Variant<File> | undefined {
  const root = files.filter(({ path }) => !path.includes('/'));
  const stored = root.filter(({ path }) => path.endsWith('.safetensors') && !OTHER_WEIGHTS.test(path));
  const sharded = root.some(({ path }) => path === INDEX_FILE);
  const weights = stored.filter(({ path }) => sharded === (path !== SINGLE_FILE));
  if (weights.length === 0 || !root.some(({ path }) => path === 'config.json')) return undefined;
  const counts = weights.map(({ path }) => Number(/-of-(\d+)\.safetensors$/.exec(path)?.[1] ?? 0));
  return {
    name: 'safetensors',
    kind: 'safetensors',
    files: [...root.filter(({ path }) => COMPANIONS.test(path)), ...weights],
    bytes: sum(weights),
    complete: weights.length >= Math.max(...counts),
  };
}

/** The quantization that a file name (else its folder) tells, in upper case. */
function quantOf(stem: string): string | undefined {
  for (const part of stem.split('/').reverse()) {
    const found = [...part.matchAll(QUANT)].at(-1)?.[1];
    if (found !== undefined) return found.toUpperCase();
  }
  return undefined;
}

/**
 * The variant a user means: by its name in any case, by the file's or folder's name, or by the end of just one name
 * (`Q2_K_XL` for `UD-Q2_K_XL`); without a wish the only one there is. REQUEST_INVALID lists what there is.
 */
export function chooseVariant<File extends SizedFile>(
  repository: string,
  variants: readonly Variant<File>[],
  quant: string | undefined,
): Variant<File> {
  const wish = quant?.toLowerCase();
  const matches = wish === undefined ? variants : matching(variants, wish);
  if (matches.length !== 1) {
    const some = variants.slice(0, MOST_NAMED).map(({ name, bytes }) => `${name} (${gigabytes(bytes)})`);
    const there = `${some.join(', ')}${variants.length > MOST_NAMED ? ` and ${variants.length - MOST_NAMED} more` : ''}`;
    throw new TandemError(variants.length === 0 ? 'FORMAT_UNSUPPORTED' : 'REQUEST_INVALID', {
      room: 'hub',
      rule:
        variants.length === 0
          ? 'a model repository holds GGUF files, or config.json and safetensors'
          : 'one variant of a model is named',
      given:
        variants.length === 0
          ? `${repository} has neither`
          : `${quant === undefined ? 'no quantization' : quant} was given; ${repository} has ${there}`,
      fix:
        variants.length === 0
          ? 'look for a repository of the same model that has them'
          : `${repository}:${variants[0].name} and so on`,
    });
  }
  const [variant] = matches;
  if (variant.complete) return variant;
  throw new TandemError('FORMAT_INVALID', {
    room: 'hub',
    rule: 'a split model needs all its files',
    given: `${repository}:${variant.name} has only ${variant.files.length} of them`,
    fix: 'choose another quantization',
  });
}

function matching<File extends SizedFile>(variants: readonly Variant<File>[], wish: string): readonly Variant<File>[] {
  const names = (variant: Variant) => [
    variant.name,
    ...variant.files.flatMap(({ path }) => [path, baseName(path), folderName(path)]),
  ];
  const exact = variants.filter((variant) => names(variant).some((name) => name.toLowerCase() === wish));
  if (exact.length > 0) return exact;
  return variants.filter(({ name }) => name.toLowerCase().endsWith(`-${wish}`));
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function folderName(path: string): string {
  return path.includes('/') ? baseName(path.slice(0, path.lastIndexOf('/'))) : path;
}

/** `404 GB`, `1.12 GB`, `3.4 MB`: decimal, as disks count. */
export function gigabytes(bytes: number): string {
  const [unit, size] = bytes >= 1e9 ? ['GB', 1e9] : bytes >= 1e6 ? ['MB', 1e6] : ['kB', 1e3];
  return `${(bytes / size).toPrecision(bytes / size >= 100 ? Math.max(3, String(Math.round(bytes / size)).length) : 3)} ${unit}`;
}

function sum(files: readonly SizedFile[]): number {
  return files.reduce((total, { size }) => total + size, 0);
}
