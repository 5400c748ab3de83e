/** A layer of the cache as it should be after the appends of a check, and the bytes that a backend has instead. */
import { E4M3_VALUES } from '../../formats/quants/half.ts';
import { opNamed } from '../../ops/index.ts';
import type { KvReader, Matrix, ReferenceContext } from '../../ops/op.ts';
import { type Batch, rowPositions } from '../../program/batch.ts';
import { KV_BYTES, type KvType, type Program, type Step } from '../../program/program.ts';
import { ReferenceKv, streamStarts } from '../reference-kv.ts';
import type { StepInputs } from './inputs.ts';

export class CheckedCache {
  readonly #program: Program;
  readonly #layer: number;
  readonly #kv: ReferenceKv;
  /** Pages, and positions in them, that were written. */
  readonly #written = new Map<number, Set<number>>();

  constructor(program: Program, layer: number, pages: number) {
    this.#program = program;
    this.#layer = layer;
    this.#kv = new ReferenceKv({ ...program.kv, layers: [program.kv.layers[layer]] }, pages);
  }

  /** With this layer alone: as layer 0. */
  get reader(): KvReader {
    return this.#kv;
  }

  append(step: Step, batch: Batch, inputs: StepInputs): void {
    const matrix = (operand: number): Matrix => {
      const input = step.inputs[operand];
      if (input?.kind !== 'value') throw new Error(`${step.name}: operand ${operand} is no value`);
      const { columns: stride } = this.#program.values[input.value];
      const whole = inputs.get(input.value)!;
      const data = new Float32Array(batch.tokens.length * input.columns);
      for (let row = 0; row < batch.tokens.length; row++) {
        const start = row * stride + input.start;
        data.set(whole.subarray(start, start + input.columns), row * input.columns);
      }
      return { rows: batch.tokens.length, columns: input.columns, data };
    };
    const context = { batch, positions: rowPositions(batch), kv: this.#kv, step, matrix, number: () => 0 };
    opNamed(step.op).reference(context as unknown as ReferenceContext);
    const { pageTokens } = this.#program.kv;
    for (const { firstPosition, rows, pages } of batch.sequences)
      for (let at = firstPosition; at < firstPosition + rows; at++) {
        const page = pages[Math.floor(at / pageTokens)];
        if (!this.#written.has(page)) this.#written.set(page, new Set());
        this.#written.get(page)!.add(at % pageTokens);
      }
  }

  /** The first element that is another one, in words. */
  async differs(read: (page: number) => Promise<Uint8Array>): Promise<string | undefined> {
    const { kv } = this.#program;
    const first = streamStarts(kv)[this.#layer][0];
    for (const [page, positions] of this.#written) {
      const expected = this.#kv.page(page);
      const actual = decode(kv.type, await read(page), first, expected.length);
      let start = 0;
      for (const { heads, width } of kv.layers[this.#layer].streams) {
        for (let head = 0; head < heads; head++)
          for (const position of positions)
            for (let i = 0; i < width; i++) {
              const at = start + (head * kv.pageTokens + position) * width + i;
              if (Object.is(actual[at], expected[at]) || actual[at] === expected[at]) continue;
              return `position ${position} of page ${page}, head ${head}, element ${i} is ${actual[at]}, not ${expected[at]}`;
            }
        start += heads * kv.pageTokens * width;
      }
    }
    return undefined;
  }
}

function decode(type: KvType, page: Uint8Array, first: number, count: number): Float32Array {
  const bytes = page.slice(first * KV_BYTES[type], (first + count) * KV_BYTES[type]);
  if (type === 'f32') return new Float32Array(bytes.buffer);
  if (type === 'e4m3') return Float32Array.from(bytes, (code) => E4M3_VALUES[code]);
  const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
  return new Float32Array(bits.buffer);
}
