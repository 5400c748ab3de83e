/** The paged cache of the reference: f32 storage, every value rounded to the layout's type when written. */
import { E4M3_VALUES, f32BitsToBf16, f32BitsToE4m3 } from '../formats/quants/half.ts';
import type { KvReader } from '../ops/op.ts';
import { type KvLayout, kvElementsPerToken } from '../program/program.ts';

export class ReferenceKv implements KvReader {
  readonly layout: KvLayout;
  readonly #pageElements: number;
  /** Allocated when first touched. */
  readonly #pages: (Float32Array | undefined)[];
  readonly #starts: readonly (readonly number[])[];

  constructor(layout: KvLayout, pages: number) {
    this.layout = layout;
    this.#pageElements = kvElementsPerToken(layout) * layout.pageTokens;
    this.#pages = new Array(pages).fill(undefined);
    this.#starts = streamStarts(layout);
  }

  write(pages: Int32Array, layer: number, stream: number, head: number, position: number, values: Float32Array): void {
    const cell = this.read(pages, layer, stream, head, position);
    cell.set(values);
    if (this.layout.type === 'f32') return;
    const bits = new Uint32Array(cell.buffer, cell.byteOffset, cell.length);
    if (this.layout.type === 'e4m3')
      for (let i = 0; i < bits.length; i++) cell[i] = E4M3_VALUES[f32BitsToE4m3(bits[i])];
    else for (let i = 0; i < bits.length; i++) bits[i] = f32BitsToBf16(bits[i]) << 16;
  }

  /** The cell itself, in place. */
  read(pages: Int32Array, layer: number, stream: number, head: number, position: number): Float32Array {
    const { pageTokens, layers } = this.layout;
    const { width } = layers[layer].streams[stream];
    const page = this.page(pages[Math.floor(position / pageTokens)]);
    const start = this.#starts[layer][stream] + (head * pageTokens + (position % pageTokens)) * width;
    return page.subarray(start, start + width);
  }

  /** All elements of a page, layer by layer, stream by stream, [heads][pageTokens][width]. */
  page(id: number): Float32Array {
    this.#pages[id] ??= new Float32Array(this.#pageElements);
    return this.#pages[id];
  }
}

/** First element of each stream in a page: [layer][stream]. */
export function streamStarts({ layers, pageTokens }: KvLayout): number[][] {
  let next = 0;
  return layers.map(({ streams }) =>
    streams.map(({ heads, width }) => {
      const start = next;
      next += heads * width * pageTokens;
      return start;
    }),
  );
}
