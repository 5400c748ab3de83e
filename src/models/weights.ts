/**
 * Finds a model's weights in a checkpoint, whatever its container and layout, and checks them against the configuration.
 * It reads headers only, never weight data.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint, TensorInfo } from '../formats/checkpoint.ts';
import type { FormatName } from '../formats/dtype.ts';
import { isFormatName, quantFormat } from '../formats/quants/index.ts';
import type { Weight } from '../program/tensor.ts';
import { expertNames, gateUpNames, type OwnNames, otherNames, type Projection, tensorName } from './gguf-names.ts';

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
  findExperts(path: string, projection: Projection, shape: readonly [number, number, number]): Weight;
}

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
    return this.checkpoint.tensors.has(this.#nameOf(path));
  }

  find(path: string, shape: readonly number[]): Weight {
    const name = this.#nameOf(path);
    const known = this.#byName.get(name);
    const tensor = this.checkpoint.tensors.get(name);
    if (tensor === undefined) throw this.#missing(path, [name], shape);
    this.#checkShape(tensor, shape);
    if (known !== undefined) return known;
    return this.#add(name, shape, [tensor]);
  }

  findOptional(path: string, shape: readonly number[]): Weight | undefined {
    return this.has(path) ? this.find(path, shape) : undefined;
  }

  findExperts(path: string, projection: Projection, shape: readonly [number, number, number]): Weight {
    const { kind, tensors } = this.checkpoint;
    const names = expertNames(kind, path, projection);
    const found = names.find((name) => tensors.has(name.replace('{e}', '0')));
    if (found === undefined) {
      const both = gateUpNames(kind, path, projection).find((name) => tensors.has(name));
      if (both === undefined) throw this.#missing(`${path} ${projection}`, names, shape);
      return this.#half(both, projection, shape);
    }
    if (!found.includes('{e}')) {
      const tensor = tensors.get(found)!;
      this.#checkShape(tensor, shape);
      return this.#add(found, shape, [tensor]);
    }
    const parts: TensorInfo[] = [];
    for (let e = 0; e < shape[0]; e++) {
      const tensor = tensors.get(found.replace('{e}', String(e)));
      if (tensor === undefined) throw this.#missing(`${path} ${projection}`, [found.replace('{e}', String(e))], shape);
      this.#checkShape(tensor, shape.slice(1));
      parts.push(tensor);
    }
    return this.#add(found, shape, parts);
  }

  /** The gate or the up rows of a tensor that holds both. */
  #half(name: string, projection: Projection, [experts, rows, columns]: readonly [number, number, number]): Weight {
    const tensor = this.checkpoint.tensors.get(name)!;
    this.#checkShape(tensor, [experts, 2 * rows, columns]);
    if (isFormatName(tensor.format) && quantFormat(tensor.format).scaleBlock) {
      throw new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: `${tensor.format} experts have gate and up in tensors of their own`,
        given: `${this.checkpoint.name}: ${name} holds both`,
        fix: 'use a checkpoint with a tensor for each, or a GGUF file',
      });
    }
    const start = projection === 'up' ? rows : 0;
    return this.#add(name, [experts, rows, columns], [tensor], { start, of: 2 * rows });
  }

  /** The name under which the checkpoint has a path's tensor; the usual one where it has none. */
  #nameOf(path: string): string {
    const usual = tensorName(this.kind, path, this.#ownNames);
    return [usual, ...otherNames(usual)].find((name) => this.checkpoint.tensors.has(name)) ?? usual;
  }

  #add(name: string, shape: readonly number[], tensors: readonly TensorInfo[], rows?: Weight['rows']): Weight {
    const format = this.#formatOf(tensors);
    const scales = quantFormat(format).scaleBlock && tensors.map((tensor) => this.#scaleOf(tensor));
    const parts = tensors.map((tensor) => tensor.name);
    for (const part of [...parts, ...(scales ?? [])]) this.#used.add(part);
    const weight: Weight = {
      id: this.#weights.length,
      name,
      shape: [...shape],
      format,
      parts,
      ...(rows && { rows }),
      ...(scales && { scales }),
    };
    this.#weights.push(weight);
    this.#byName.set(name, weight);
    return weight;
  }

  /** The one format of all parts. */
  #formatOf(tensors: readonly TensorInfo[]): FormatName {
    const [first] = tensors;
    if (!isFormatName(first.format)) {
      throw new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: 'weights are in a format that Tandem decodes',
        given: `${this.checkpoint.name}: ${first.name} is ${first.format}`,
        fix: 'use a checkpoint in another format',
      });
    }
    const other = tensors.find((tensor) => tensor.format !== first.format);
    if (other !== undefined) {
      throw new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: 'all experts of a layer share one format',
        given: `${this.checkpoint.name}: ${first.name} is ${first.format}, ${other.name} is ${other.format}`,
        fix: 'use a checkpoint whose experts are quantized alike',
      });
    }
    return first.format;
  }

  /** Name of the tensor that holds the block scales of an FP8 weight. */
  #scaleOf(tensor: TensorInfo): string {
    const block = quantFormat(tensor.format).scaleBlock!;
    const name = `${tensor.name}_scale_inv`;
    const scale = this.checkpoint.tensors.get(name);
    const expected = [Math.ceil(tensor.shape[0] / block.rows), Math.ceil(tensor.shape[1] / block.columns)];
    const rule = `an ${tensor.format} weight has f32 scales of ${block.rows} × ${block.columns} blocks`;
    const fix = 'use a checkpoint with block-scaled FP8, as DeepSeek publishes';
    if (scale === undefined) throw this.#invalid(rule, `${this.checkpoint.name} has no ${name}`, fix);
    if (scale.format !== 'f32' || !sameShape(scale.shape, expected)) {
      const given = `${name} is ${scale.shape.join(' × ')} ${scale.format}, expected ${expected.join(' × ')} f32`;
      throw this.#invalid(rule, given, fix);
    }
    return name;
  }

  /** The shape itself, or its outer dimensions in one (the same bytes). */
  #checkShape(tensor: TensorInfo, shape: readonly number[]): void {
    if (sameShape(tensor.shape, shape)) return;
    const columns = shape[shape.length - 1];
    const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
    if (shape.length === 3 && sameShape(tensor.shape, [rows, columns])) return;
    throw this.#invalid(
      `${tensor.name} is ${shape.join(' × ')} by the configuration`,
      `in ${this.checkpoint.name} it is ${tensor.shape.join(' × ')}`,
      'configuration and weights are of different models; fetch both again',
    );
  }

  #missing(path: string, names: readonly string[], shape: readonly number[]): TandemError {
    const { tensors, name } = this.checkpoint;
    const stem = names[0].replace('{e}', '0').replace(/weight$/, '');
    const packed = ['weight_packed', 'qweight']
      .map((suffix) => stem + suffix)
      .find((packedName) => tensors.has(packedName));
    if (packed !== undefined) {
      return new TandemError('FORMAT_UNSUPPORTED', {
        room: 'models',
        rule: 'Hugging Face weights are f32, f16, bf16 or block-scaled FP8',
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

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((length, i) => length === b[i]);
}
