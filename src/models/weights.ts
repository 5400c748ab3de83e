/**
 * Finds a model's weights in a checkpoint, whatever its container and layout, and checks them against the configuration.
 * It reads headers only, never weight data.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { FormatName } from '../formats/dtype.ts';
import { isFormatName, quantFormat } from '../formats/quants/index.ts';
import type { Weight } from '../program/tensor.ts';
import {
  expertBiasNames,
  expertNames,
  gateUpNames,
  type OwnNames,
  otherNames,
  type Projection,
  tensorName,
} from './gguf-names.ts';
import { type Stored, sameShape, storedWeight } from './stored.ts';

/** Read into the configuration (Llama 3 in GGUF). */
export const ROPE_FACTORS = 'rope_freqs.weight';

const FETCH_AGAIN = 'the file is incomplete or was converted by an old tool; fetch it again';

/** What a graph asks of a model's weights. Paths are Hugging Face's, e.g. `model.layers.0.mlp.gate.weight`. */
export interface WeightFinder {
  readonly kind: Checkpoint['kind'];
  /** Every weight found so far, by id. */
  readonly weights: readonly Weight[];
  has(path: string): boolean;
  /** The weight at `path`; MODEL_INVALID where it is missing or has another shape. */
  find(path: string, shape: readonly number[]): Weight;
  findOptional(path: string, shape: readonly number[]): Weight | undefined;
  /** Routed experts [E, N, K] under `path`: one fused tensor, or one per expert. */
  findExperts(path: string, projection: Projection, shape: Experts, habits?: ExpertHabits): Weight;
  /** Biases of routed experts as [E, N, 1]: a tensor of their own, or gate and up in turn in one. */
  findExpertBias(path: string, projection: Projection, shape: readonly [number, number]): Weight;
}

/** How Hugging Face's files of a model keep the experts of a layer in one tensor. */
export interface ExpertHabits {
  /** Where one tensor holds gate and up, their rows alternate. */
  readonly inTurn?: boolean;
  /** Numbers that are not packed are stored column by column: [E, K, N]. */
  readonly byColumns?: boolean;
}

type Experts = readonly [experts: number, rows: number, columns: number];

export class WeightSource implements WeightFinder {
  readonly checkpoint: Checkpoint;
  readonly #ownNames: OwnNames | undefined;
  readonly #weights: Weight[] = [];
  readonly #byName = new Map<string, Weight>();
  readonly #used = new Set<string>();

  /** `ownNames`: the architecture's, see ModelDefinition. */
  constructor(checkpoint: Checkpoint, ownNames?: OwnNames) {
    this.checkpoint = checkpoint;
    this.#ownNames = ownNames;
  }

  get kind(): Checkpoint['kind'] {
    return this.checkpoint.kind;
  }

  get weights(): readonly Weight[] {
    return this.#weights;
  }

  /** Tensors that no weight took and no configuration read: draft layers, leftovers of a converter, or a part of the model that is not known. */
  unused(): string[] {
    return [...this.checkpoint.tensors.keys()].filter((name) => !this.#used.has(name) && name !== ROPE_FACTORS);
  }

  has(path: string): boolean {
    return storedWeight(this.checkpoint, this.#nameOf(path)) !== undefined;
  }

  find(path: string, shape: readonly number[]): Weight {
    const name = this.#nameOf(path);
    const known = this.#byName.get(name);
    const stored = storedWeight(this.checkpoint, name);
    if (stored === undefined) throw this.#missing(path, [name], shape);
    this.#checkShape(stored, shape);
    if (known !== undefined) return known;
    return this.#add(name, shape, [stored]);
  }

  findOptional(path: string, shape: readonly number[]): Weight | undefined {
    return this.has(path) ? this.find(path, shape) : undefined;
  }

  findExperts(path: string, projection: Projection, shape: Experts, habits: ExpertHabits = {}): Weight {
    const { kind } = this.checkpoint;
    const own = kind === 'huggingface' ? habits : {};
    const names = expertNames(kind, path, projection);
    const found = names.find((name) => storedWeight(this.checkpoint, name.replace('{e}', '0')));
    if (found === undefined) {
      const both = gateUpNames(kind, path, projection).find((name) => storedWeight(this.checkpoint, name));
      if (both === undefined) throw this.#missing(`${path} ${projection}`, names, shape);
      return this.#half(both, projection, shape, own);
    }
    if (!found.includes('{e}')) {
      const stored = storedWeight(this.checkpoint, found)!;
      const byColumns = isByColumns(stored, own);
      this.#checkShape(stored, byColumns ? columnsFirst(shape) : shape);
      return this.#add(found, shape, [stored], { byColumns });
    }
    const parts: Stored[] = [];
    for (let e = 0; e < shape[0]; e++) {
      const stored = storedWeight(this.checkpoint, found.replace('{e}', String(e)));
      if (stored === undefined) throw this.#missing(`${path} ${projection}`, [found.replace('{e}', String(e))], shape);
      this.#checkShape(stored, shape.slice(1));
      parts.push(stored);
    }
    return this.#add(found, shape, parts);
  }

  findExpertBias(path: string, projection: Projection, [experts, rows]: readonly [number, number]): Weight {
    const names = expertBiasNames(this.kind, path, projection);
    const shape = [experts, rows, 1];
    const [own, both] = names.map((name) => storedWeight(this.checkpoint, name));
    if (own !== undefined) {
      this.#checkShape(own, [experts, rows]);
      return this.#add(names[0], shape, [own]);
    }
    if (both === undefined) throw this.#missing(`${path} ${projection} bias`, names, [experts, rows]);
    this.#checkShape(both, [experts, 2 * rows]);
    const start = projection === 'up' ? 1 : 0;
    return this.#add(names[1], shape, [both], { rows: { start, of: 2 * rows, step: 2 } });
  }

  /** The gate or the up rows of a tensor that holds both: gate above up, or in turn. */
  #half(name: string, projection: Projection, [experts, rows, columns]: Experts, habits: ExpertHabits): Weight {
    const stored = storedWeight(this.checkpoint, name)!;
    const byColumns = isByColumns(stored, habits);
    const whole: Experts = [experts, 2 * rows, columns];
    this.#checkShape(stored, byColumns ? columnsFirst(whole) : whole);
    const shared = (isFormatName(stored.format) && quantFormat(stored.format).scaleBlock?.rows) || 1;
    if (shared > 1 && (habits.inTurn || rows % shared !== 0)) {
      throw new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: `gate and up in one ${stored.format} tensor share no scales, which stand for ${shared} rows each`,
        given: `${this.checkpoint.name}: ${name} has ${habits.inTurn ? 'them in turn' : `${rows} rows of each`}`,
        fix: 'use a checkpoint with a tensor for each, or a GGUF file',
      });
    }
    const second = projection === 'up';
    const view = habits.inTurn
      ? { start: second ? 1 : 0, of: 2 * rows, step: 2 }
      : { start: second ? rows : 0, of: 2 * rows };
    return this.#add(name, [experts, rows, columns], [stored], { rows: view, byColumns });
  }

  /** The name under which the checkpoint has a path's tensor; the usual one where it has none. */
  #nameOf(path: string): string {
    const usual = tensorName(this.kind, path, this.#ownNames);
    return [usual, ...otherNames(usual)].find((name) => storedWeight(this.checkpoint, name)) ?? usual;
  }

  #add(
    name: string,
    shape: readonly number[],
    stored: readonly Stored[],
    { rows, byColumns }: Pick<Weight, 'rows' | 'byColumns'> = {},
  ): Weight {
    const format = this.#formatOf(stored);
    const scales = quantFormat(format).scaleBlock && stored.map((each) => each.scales!.name);
    const scaleType = this.#scaleTypeOf(stored);
    const parts = stored.map(({ tensor }) => tensor.name);
    for (const part of [...parts, ...(scales ?? []), ...stored.flatMap(({ also }) => also)]) this.#used.add(part);
    const weight: Weight = {
      id: this.#weights.length,
      name,
      shape: [...shape],
      format,
      parts,
      ...(rows && { rows }),
      ...(byColumns && { byColumns }),
      ...(scales && { scales }),
      ...(scaleType && { scaleType }),
    };
    this.#weights.push(weight);
    this.#byName.set(name, weight);
    return weight;
  }

  /** The one format of all parts. */
  #formatOf(parts: readonly Stored[]): FormatName {
    const [first] = parts;
    if (!isFormatName(first.format)) {
      throw new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: 'weights are in a format that Tandem decodes',
        given: `${this.checkpoint.name}: ${first.tensor.name} is ${first.format}`,
        fix: 'use a checkpoint in another format',
      });
    }
    const other = parts.find((part) => part.format !== first.format);
    if (other !== undefined)
      throw this.#unalike(`${first.tensor.name} is ${first.format}, ${other.tensor.name} is ${other.format}`);
    return first.format;
  }

  /** The one type of the scales of all parts; undefined where it is the format's. */
  #scaleTypeOf(parts: readonly Stored[]): Weight['scaleType'] {
    const [{ scaleType }] = parts;
    const other = parts.find((part) => part.scaleType !== scaleType);
    if (other !== undefined) throw this.#unalike(`${other.scales?.name} is not ${parts[0].scales?.format}`);
    return scaleType;
  }

  #unalike(given: string): TandemError {
    return new TandemError('FORMAT_UNSUPPORTED', {
      room: 'models',
      rule: 'all experts of a layer share one format',
      given: `${this.checkpoint.name}: ${given}`,
      fix: 'use a checkpoint whose experts are quantized alike',
    });
  }

  /** The shape itself, or its outer dimensions in one (the same bytes). */
  #checkShape({ tensor, shape: stored }: Stored, shape: readonly number[]): void {
    if (sameShape(stored, shape)) return;
    const columns = shape[shape.length - 1];
    const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
    if (shape.length === 3 && sameShape(stored, [rows, columns])) return;
    throw this.#invalid(
      `${tensor.name} is ${shape.join(' × ')} by the configuration`,
      `in ${this.checkpoint.name} it is ${stored.join(' × ')}`,
      'configuration and weights are of different models; fetch both again',
    );
  }

  #missing(path: string, names: readonly string[], shape: readonly number[]): TandemError {
    const { tensors, name } = this.checkpoint;
    const stem = names[0].replace('{e}', '0').replace(/weight$/, '');
    const packed = `${stem}qweight`;
    if (tensors.has(packed)) {
      return new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: 'Hugging Face weights are f32, f16, bf16, block-scaled FP8 or compressed-tensors INT4',
        given: `${name} has ${packed}, an integer packing`,
        fix: 'use the original checkpoint or a GGUF file',
      });
    }
    return this.#invalid(
      `the model has ${path} of ${shape.join(' × ')}`,
      `${name} has no tensor ${names.join(' nor ')}`,
      FETCH_AGAIN,
    );
  }

  #invalid(rule: string, given: string, fix: string): TandemError {
    return new TandemError('MODEL_INVALID', { room: 'models', rule, given, fix });
  }
}

/** Packed in blocks of a row it cannot be. */
function isByColumns({ scales }: Stored, { byColumns = false }: ExpertHabits): boolean {
  return byColumns && scales === undefined;
}

function columnsFirst([experts, rows, columns]: Experts): Experts {
  return [experts, columns, rows];
}
