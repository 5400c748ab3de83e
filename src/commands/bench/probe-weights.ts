/**
 * Random weights for a Program that is measured once: each matrix has bytes of its own in memory, while on the disk those
 * of one shape and format are the same bytes, written once. So hundreds of megabytes in memory cost a few to make.
 */
import { rmSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Checkpoint, TensorInfo } from '../../formats/checkpoint.ts';
import { type FormatName, rowBytes } from '../../formats/dtype.ts';
import { fileError, openFile } from '../../formats/file-source.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import { SCALE_BYTES } from '../../formats/quants/scales.ts';
import type { Projection } from '../../models/gguf-names.ts';
import { randomScales, randomTensor } from '../../models/random-tensor.ts';
import type { WeightFinder } from '../../models/weights.ts';
import type { Weight } from '../../program/tensor.ts';

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
    const rows = shape.slice(0, -1).reduce((product, length) => product * length, 1);
    const bytes = rows * rowBytes(quantFormat(format), shape[shape.length - 1]);
    const scaleOffset = aligned(offset + bytes);
    const { scaleBlock } = quantFormat(format);
    const scaleBytes = scaleBlock
      ? scaleShape(shape, format).reduce((product, length) => product * length, SCALE_BYTES[scaleBlock.type])
      : 0;
    this.#end = scaleOffset + scaleBytes;
    const region = { name, shape, format, offset, bytes, scaleOffset, scaleBytes, uses: 0 };
    this.#regions.set(key, region);
    return region;
  }

  /** Writes them into a temporary file that `close` (or Ctrl-C) removes. FILE_IO where there is no room. */
  async written(): Promise<Checkpoint> {
    const folder = await mkdtemp(join(tmpdir(), 'tandem-probe-'));
    const path = join(folder, 'weights.bin');
    const interrupted = () => {
      rmSync(folder, { recursive: true, force: true });
      process.exit(130);
    };
    process.once('SIGINT', interrupted);
    const remove = () => {
      process.off('SIGINT', interrupted);
      return rm(folder, { recursive: true, force: true });
    };
    try {
      await writeRegions(path, [...this.#regions.values()]);
      const source = await openFile(path);
      const uses = Math.max(...[...this.#regions.values()].map((region) => region.uses));
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
        close: () => source.close().then(remove),
      };
    } catch (error) {
      await remove();
      throw error;
    }
  }
}

function aligned(offset: number): number {
  return Math.ceil(offset / 64) * 64;
}

function scaleShape(shape: readonly number[], format: FormatName): number[] {
  const { rows, columns } = quantFormat(format).scaleBlock!;
  return [Math.ceil(shape[0] / rows), Math.ceil(shape[1] / columns)];
}

async function writeRegions(path: string, regions: readonly Region[]): Promise<void> {
  const failed = (cause: unknown): never => {
    throw fileError('write', path, cause);
  };
  const handle = await open(path, 'wx').catch(failed);
  try {
    for (const region of regions) {
      let at = region.offset;
      for (const chunk of randomTensor(region, 1)) {
        await handle.write(chunk, 0, chunk.length, at).catch(failed);
        at += chunk.length;
      }
      at = region.scaleOffset;
      for (const chunk of region.scaleBytes > 0 ? randomScales(region) : []) {
        await handle.write(chunk, 0, chunk.length, at).catch(failed);
        at += chunk.length;
      }
    }
  } finally {
    await handle.close();
  }
}
