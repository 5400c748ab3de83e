/** What is written is read back, word by word, by a reader that knows only the grammar in encode.ts. */
import { describe, expect, it } from 'vitest';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { planBuffers } from './buffers.ts';
import { BATCH_MAGIC, BATCH_VERSION, encodeBatch, encodeProgram, PROGRAM_MAGIC, PROGRAM_VERSION } from './encode.ts';

class WordReader {
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  get atEnd() {
    return this.#at === this.#view.byteLength;
  }
  #next(size: number) {
    this.#at += size;
    return this.#at - size;
  }
  u32 = () => this.#view.getUint32(this.#next(4), true);
  i32 = () => this.#view.getInt32(this.#next(4), true);
  f32 = () => this.#view.getFloat32(this.#next(4), true);
  f64 = () => this.#view.getFloat64(this.#next(8), true);
  u64 = () => Number(this.#view.getBigUint64(this.#next(8), true));
  string = () => {
    const length = this.u32();
    const at = this.#next((length + 3) & ~3);
    return new TextDecoder().decode(new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, length));
  };
  times = <T>(count: number, read: () => T): T[] => Array.from({ length: count }, read);
  list = <T>(read: () => T): T[] => this.times(this.u32(), read);
}

function readProgram(bytes: Uint8Array) {
  const r = new WordReader(bytes);
  const location = () => ({ file: r.u32(), offset: r.u64(), bytes: r.u64() });
  const rows = () => ['T', 'O'][r.u32()];
  const attribute = () => {
    const kind = r.u32();
    return kind === 0 ? r.f64() : kind === 1 ? r.u32() === 1 : kind === 2 ? r.string() : r.list(r.f64);
  };
  const operand = () => {
    const kind = r.u32();
    if (kind === 0) return null;
    if (kind === 2) return { kind: 'weight', weight: r.u32() };
    return { kind: 'value', value: r.u32(), start: r.u32(), columns: r.u32() };
  };
  const program = {
    magic: r.u32(),
    version: r.u32(),
    name: r.string(),
    vocabSize: r.u32(),
    contextLength: r.u32(),
    logits: r.u32(),
    kv: {
      pageTokens: r.u32(),
      type: ['f32', 'bf16'][r.u32()],
      layers: r.list(() => ({ streams: r.list(() => ({ heads: r.u32(), width: r.u32() })) })),
    },
    slots: r.list(() => ({ rows: rows(), columns: r.u32() })),
    values: r.list(() => ({
      name: r.string(),
      type: ['f32', 'i32'][r.u32()],
      rows: rows(),
      columns: r.u32(),
      slot: r.u32(),
    })),
    weights: r.list(() => ({
      name: r.string(),
      format: r.string(),
      shape: r.list(r.u32),
      parts: r.list(location),
      scales: r.list(location),
      scaleType: r.u32(),
      rows: { start: r.u32(), step: r.u32(), of: r.u32() },
    })),
    steps: r.list(() => ({
      op: r.string(),
      name: r.string(),
      layer: r.i32(),
      inputs: r.list(operand),
      outputs: r.list(r.u32),
      attributes: Object.fromEntries(r.list(() => [r.string(), attribute()])),
      placement: { device: r.string(), activation: r.string(), middle: r.string(), tiles: r.u32() },
    })),
  };
  expect(r.atEnd).toBe(true);
  return program;
}

describe('a program', () => {
  it.each([{ format: 'f8_e4m3' as const }, { format: 'q4_0' as const, split: true, fast: true }])(
    'is read back whole: %o',
    (options) => {
      const { program: made, checkpoint } = tinyProgram({ seed: 1, kvType: 'bf16', ...options });
      const onTiles = made.steps.map((step) =>
        step.op === 'experts' ? { ...step, placement: { ...step.placement!, tiles: 16 } } : step,
      );
      const program = { ...made, steps: onTiles };
      const plan = planBuffers(program);
      const locate = (name: string) => {
        const { offset, bytes } = checkpoint.tensors.get(name)!;
        return { file: 3, offset: offset + 2 ** 33, bytes };
      };
      const { magic, version, slots, values, weights, steps, ...rest } = readProgram(
        encodeProgram(program, plan, locate),
      );
      expect([magic, version]).toEqual([PROGRAM_MAGIC, PROGRAM_VERSION]);
      const { name, vocabSize, contextLength, logits, kv } = program;
      expect(rest).toEqual({ name, vocabSize, contextLength, logits, kv });
      expect(slots).toEqual(plan.slots);
      expect(values).toEqual(program.values.map(({ id, ...value }) => ({ ...value, slot: plan.slotOf[id] })));
      expect(weights).toEqual(
        program.weights.map(({ id, parts, scales = [], ...weight }) => ({
          ...weight,
          parts: parts.map(locate),
          scales: scales.map(locate),
          scaleType: 0,
          rows: { start: 0, step: 1, of: weight.shape.at(-2) ?? 1 },
        })),
      );
      expect(steps).toEqual(
        program.steps.map((step) => ({
          ...step,
          placement: { middle: step.placement!.activation, tiles: 0, ...step.placement },
        })),
      );
    },
  );

  it('without a placement is refused', () => {
    const { program, checkpoint } = tinyProgram({ seed: 1 });
    const steps = program.steps.map(({ placement, ...step }, i) => (i === 3 ? step : { ...step, placement }));
    const bare = { ...program, steps };
    const locate = (name: string) => checkpoint.tensors.get(name)!;
    expect(() => encodeProgram(bare, planBuffers(bare), locate)).toThrow(`step ${steps[3].name} has no placement`);
  });
});

describe('a batch', () => {
  it('is read back whole', () => {
    const change = {
      temperature: 0.5,
      topK: 3,
      topP: 0.75,
      minP: 0.125,
      repetitionPenalty: 1.5,
      presencePenalty: -0.5,
      frequencyPenalty: 0.25,
      seedLow: 0xfffffffe,
      seedHigh: 7,
      topLogprobs: 5,
      penaltyTokens: Int32Array.of(4, 5),
      penaltyCounts: Int32Array.of(1, 0),
      biasTokens: Int32Array.of(9),
      biasValues: Float32Array.of(-2.5),
      mask: Uint32Array.of(0x80000001, 3),
    };
    const full = batchOf(
      [
        { tokens: [1, 2], firstPosition: 63, pages: [4, 2], slot: 6, outputs: 'last' },
        { tokens: [3], pages: [0] },
      ],
      change,
    );
    const batch = { ...full, outputs: [{ row: 0, sampling: null }, ...full.outputs] };
    const r = new WordReader(encodeBatch(batch));
    expect([r.u32(), r.u32()]).toEqual([BATCH_MAGIC, BATCH_VERSION]);
    expect(r.times(4, r.u32)).toEqual([3, 2, 3, 1]);
    expect(r.times(3, r.i32)).toEqual([1, 2, 3]);
    for (const { slot, firstRow, rows, firstPosition, pages } of batch.sequences) {
      expect(r.times(4, r.u32)).toEqual([slot, firstRow, rows, firstPosition]);
      expect(r.list(r.i32)).toEqual([...pages]);
    }
    for (const { row, sampling } of batch.outputs) {
      expect([r.u32(), r.u32()]).toEqual([row, sampling ? 1 : 0]);
      if (!sampling) continue;
      expect([r.f32(), r.u32(), r.f32(), r.f32()]).toEqual([0.5, 3, 0.75, 0.125]);
      expect(r.times(3, r.f32)).toEqual([1.5, -0.5, 0.25]);
      expect(r.times(7, r.u32)).toEqual([0xfffffffe, 7, sampling.position, 5, 2, 1, 2]);
      expect(r.times(5, r.i32)).toEqual([4, 5, 1, 0, 9]);
      expect(r.f32()).toBe(-2.5);
      expect(r.times(2, r.u32)).toEqual([0x80000001, 3]);
    }
    expect(r.atEnd).toBe(true);
  });
});
