/**
 * Random weights for a Program that is measured once: each matrix has bytes of its own in memory, while on the disk those
 * of one shape and format are the same bytes, written once. So hundreds of megabytes in memory cost a few to make.
 */
import type { Checkpoint, TensorInfo } from '../../formats/checkpoint.ts';
import type { FormatName } from '../../formats/dtype.ts';
import type { Projection } from '../../models/gguf-names.ts';
import { randomScales, randomTensor } from '../../models/random-tensor.ts';
import type { WeightFinder } from '../../models/weights.ts';
import type { Weight } from '../../program/tensor.ts';
import { aligned, matrixBytes, type Stretch, scaleBytes, scaleShape, temporaryWeights } from './temporary-weights.ts';

interface Region {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: FormatName;
  /** Of the weights, then of their scales. */
  readonly offset: number;
  readonly bytes: number;
  readonly scaleOffset: number;
  readonly scaleBytes: number;
  /** Matrices that have these bytes, each under a file of its own number. */
  uses: number;
}

/** Grants every wish in the format that `formatOf` says for a path. */
export class ProbeWeights implements WeightFinder {
  readonly kind = 'huggingface';
  readonly weights: Weight[] = [];
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #regions = new Map<string, Region>();
  readonly #formatOf: (path: string) => FormatName;
  #end = 0;

  constructor(formatOf: (path: string) => FormatName) {
    this.#formatOf = formatOf;
  }

  has(path: string): boolean {
    return !path.endsWith('bias');
  }

  find(path: string, shape: readonly number[]): Weight {
    return this.weights.find(({ name }) => name === path) ?? this.#add(path, shape, [path], shape);
  }

  findOptional(path: string, shape: readonly number[]): Weight | undefined {
    return this.has(path) ? this.find(path, shape) : undefined;
  }

  findExperts(path: string, projection: Projection, shape: readonly [number, number, number]): Weight {
    const name = `${path}.${projection}`;
    const parts = Array.from({ length: shape[0] }, (_, expert) => `${name}.${expert}`);
    return this.#add(name, shape, parts, shape.slice(1));
  }

  findExpertBias(path: string, projection: Projection, shape: readonly [number, number]): Weight {
    return this.find(`${path}.${projection}.bias`, shape);
  }

  #add(name: string, shape: readonly number[], parts: readonly string[], each: readonly number[]): Weight {
    const format = each.length === 1 ? 'f32' : this.#formatOf(name);
    const region = this.#region(name, each, format);
    for (const part of parts) {
      const file = region.uses++;
      this.#tensors.set(part, { name: part, shape: each, format, file, offset: region.offset, bytes: region.bytes });
      if (region.scaleBytes > 0) {
        const scales = { name: `${part}.scales`, shape: scaleShape(each, format), format, file };
        this.#tensors.set(scales.name, { ...scales, offset: region.scaleOffset, bytes: region.scaleBytes });
      }
    }
    const scales = region.scaleBytes > 0 ? { scales: parts.map((part) => `${part}.scales`) } : {};
    const weight = { id: this.weights.length, name, shape, format, parts, ...scales };
    this.weights.push(weight);
    return weight;
  }

  #region(name: string, shape: readonly number[], format: FormatName): Region {
    const key = `${shape} ${format}`;
    const found = this.#regions.get(key);
    if (found) return found;
    const offset = aligned(this.#end);
    const bytes = matrixBytes(shape, format);
    const scaleOffset = aligned(offset + bytes);
    const scales = scaleBytes(shape, format);
    this.#end = scaleOffset + scales;
    const region = { name, shape, format, offset, bytes, scaleOffset, scaleBytes: scales, uses: 0 };
    this.#regions.set(key, region);
    return region;
  }

  /** Writes them into a temporary file that `close` (or Ctrl-C) removes. FILE_IO where there is no room. */
  async written(): Promise<Checkpoint> {
    const regions = [...this.#regions.values()];
    const { source, close } = await temporaryWeights('tandem-probe-', stretches(regions));
    const uses = Math.max(...regions.map((region) => region.uses));
    return {
      kind: 'huggingface',
      name: 'probe',
      files: Array.from({ length: uses }, () => source),
      tensors: this.#tensors,
      metadata: new Map(),
      readTensor: (name) => {
        const { offset, bytes } = this.#tensors.get(name)!;
        return source.read(offset, offset + bytes);
      },
      close,
    };
  }
}

function* stretches(regions: readonly Region[]): Generator<Stretch> {
  for (const region of regions) {
    yield { offset: region.offset, chunks: randomTensor(region, 1) };
    if (region.scaleBytes > 0) yield { offset: region.scaleOffset, chunks: randomScales(region) };
  }
}
