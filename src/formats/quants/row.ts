/** Makes a `QuantFormat` from the code of one block. Checks lengths once a row, so that a mistake is not a silent zero. */
import { TandemError } from '../../errors.ts';
import type { FormatName, QuantFormat, ScaleType } from '../dtype.ts';

export interface BlockCodec {
  readonly name: FormatName;
  readonly blockSize: number;
  readonly blockBytes: number;
  readonly ggml: { readonly id: number; readonly name: string };
  /** Decodes the block at byte `offset` of `source` to `out[at …]`. */
  decodeBlock(source: Uint8Array, offset: number, out: Float32Array, at: number): void;
  /** Encodes `values[at …]` to the block at byte `offset` of `out`. */
  encodeBlock?(values: Float32Array, at: number, out: Uint8Array, offset: number): void;
}

export function blockFormat(codec: BlockCodec): QuantFormat {
  const { name, blockSize, blockBytes, ggml, decodeBlock, encodeBlock } = codec;
  const format: QuantFormat = {
    name,
    blockSize,
    blockBytes,
    ggml,
    decodeRow(source, out) {
      checkRow(format, source.length, out.length);
      for (let offset = 0, at = 0; at < out.length; offset += blockBytes, at += blockSize) {
        decodeBlock(source, offset, out, at);
      }
    },
  };
  if (encodeBlock !== undefined) {
    format.encodeRow = (values, out) => {
      checkRow(format, out.length, values.length);
      for (let offset = 0, at = 0; at < values.length; offset += blockBytes, at += blockSize) {
        encodeBlock(values, at, out, offset);
      }
    };
  }
  return format;
}

/** Throws REQUEST_INVALID unless `bytes` bytes are a row of `count` weights. */
export function checkRow(format: QuantFormat, bytes: number, count: number): void {
  if (count % format.blockSize === 0 && bytes === (count / format.blockSize) * format.blockBytes) return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'formats',
    rule: `a row of ${format.name} has ${format.blockBytes} bytes for every ${format.blockSize} weights`,
    given: `${bytes} bytes and ${count} weights`,
  });
}

/** Throws REQUEST_INVALID unless there is a scale for every `scaleBlock` of `count` weights. */
export function checkScales(format: QuantFormat, count: number, scales?: Float32Array): asserts scales is Float32Array {
  const { columns } = format.scaleBlock!;
  const needed = Math.ceil(count / columns);
  if (scales?.length === needed) return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'formats',
    rule: `a row of ${count} ${format.name} weights has ${needed} scales, one for every ${columns} columns`,
    given: scales === undefined ? 'no scales' : `${scales.length} scales`,
  });
}

export interface NibbleCodec {
  readonly name: FormatName;
  readonly type: ScaleType;
  /** What the sixteen codes are worth. */
  readonly levels: Float32Array;
  /** The codes of the 32 values from `at` on, and their scale as stored, little-endian. */
  encode(values: Float32Array, at: number): { readonly codes: Uint8Array; readonly scale: readonly number[] };
}

/** A format of 32 four-bit codes in 16 bytes, weight 2i in the low nibble of byte i, whose scales lie apart. */
export function nibblesWithScales({ name, type, levels, encode }: NibbleCodec): QuantFormat {
  const format: QuantFormat = {
    name,
    blockSize: 32,
    blockBytes: 16,
    scaleBlock: { rows: 1, columns: 32, type },
    decodeRow(source, out, scales) {
      checkRow(format, source.length, out.length);
      checkScales(format, out.length, scales);
      for (let at = 0; at < out.length; at += 2) {
        const scale = scales[at >> 5];
        const pair = source[at >> 1];
        out[at] = scale * levels[pair & 15];
        out[at + 1] = scale * levels[pair >> 4];
      }
    },
    encodeScaledRow(values, out, scales) {
      checkRow(format, out.length, values.length);
      for (let at = 0, b = 0; at < values.length; at += 32, b++) {
        const { codes, scale } = encode(values, at);
        for (let i = 0; i < 16; i++) out[at / 2 + i] = codes[2 * i] | (codes[2 * i + 1] << 4);
        scales.set(scale, b * scale.length);
      }
    },
  };
  return format;
}

/** Error for values a quantized block cannot hold. `at` is the index of the block's first value in its row. */
export function notEncodable(format: FormatName, at: number, scale = 'fits a half (at most 65504)'): TandemError {
  return new TandemError('MODEL_INVALID', {
    room: 'formats',
    rule: `${format} holds finite weights whose scale ${scale}`,
    given: `the block at column ${at} has NaN, infinity or larger values`,
    fix: 'keep this tensor in f32 or bf16, or repair the checkpoint',
  });
}
