/** Makes a `QuantFormat` from the code of one block. Checks lengths once a row, so that a mistake is not a silent zero. */
import { TandemError } from '../../errors.ts';
import type { FormatName, QuantFormat } from '../dtype.ts';

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

/** Error for values a quantized block cannot hold. `at` is the index of the block's first value in its row. */
export function notEncodable(format: FormatName, at: number): TandemError {
  return new TandemError('MODEL_INVALID', {
    room: 'formats',
    rule: `${format} holds finite weights whose scale fits a half (at most 65504)`,
    given: `the block at column ${at} has NaN, infinity or larger values`,
    fix: 'keep this tensor in f32 or bf16, or repair the checkpoint',
  });
}
