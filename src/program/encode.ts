/**
 * A placed Program and a Batch as bytes for native. Little-endian, versioned; strings are u32 length + UTF-8, padded to
 * 4 so that words stay aligned. `native/core/program.cc` and `native/core/batch.cc` read exactly this.
 */
import { TandemError } from '../errors.ts';
import type { Batch } from './batch.ts';
import type { BufferPlan } from './buffers.ts';
import { type Attribute, KV_TYPES, type Program, type StepExecution } from './program.ts';
import { WordWriter } from './words.ts';

export const PROGRAM_MAGIC = 0x4d444e54; // 'TNDM'
export const BATCH_MAGIC = 0x54414254; // 'TBAT'
export const PROGRAM_VERSION = 2;
/** Of Programs of which steps compute in another way where every sequence has one row. */
const DECODE_VERSION = 3;
export const BATCH_VERSION = 1;

/** Where a tensor's bytes are: index into the list of files given to native beside the Program. */
export interface TensorLocation {
  readonly file: number;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * program := magic version name vocabSize contextLength logits
 *            pageTokens kvType(0 f32, 1 bf16, 2 e4m3) layers:{streams:{heads width}*}*
 *            slots:{rows(0 T, 1 O) columns}*
 *            values:{name type(0 f32, 1 i32) rows columns slot}*
 *            weights:{name format dims:u32* parts:location* scales:location* stored(1 scales in bf16, 2 column by column)
 *                     start step of}*      row n of a matrix is its stored row start + n·step of `of`
 *            steps:{op name layer(i32) inputs:operand* outputs:u32* attributes:{key value}* device activation middle
 *                   tiles(0 never)
 *                   [activation middle tiles]}*       as DECODE_VERSION: where every sequence has one row
 * operand := 0 | 1 value start columns | 2 weight          location := file offset(u64) bytes(u64)
 * value   := 0 f64 | 1 bool(u32) | 2 string | 3 count f64*  every X* is preceded by its u32 count
 */
export function encodeProgram(
  program: Program,
  plan: BufferPlan,
  locate: (tensor: string) => TensorLocation,
): Uint8Array {
  const w = new WordWriter();
  const decodes = program.steps.some(({ placement }) => placement?.decode !== undefined);
  w.u32(PROGRAM_MAGIC).u32(decodes ? DECODE_VERSION : PROGRAM_VERSION);
  w.string(program.name).u32(program.vocabSize).u32(program.contextLength);
  w.u32(program.logits).u32(program.kv.pageTokens).u32(KV_TYPES.indexOf(program.kv.type));
  w.list(program.kv.layers, (layer) => w.list(layer.streams, (stream) => w.u32(stream.heads).u32(stream.width)));
  w.list(plan.slots, (slot) => w.u32(slot.rows === 'T' ? 0 : 1).u32(slot.columns));
  w.list(program.values, (value) => {
    w.string(value.name)
      .u32(value.type === 'f32' ? 0 : 1)
      .u32(value.rows === 'T' ? 0 : 1);
    w.u32(value.columns).u32(plan.slotOf[value.id]);
  });
  const place = ({ file, offset, bytes }: TensorLocation) => w.u32(file).u64(offset).u64(bytes);
  w.list(program.weights, (weight) => {
    w.string(weight.name).string(weight.format);
    w.list(weight.shape, (dimension) => w.u32(dimension));
    w.list(weight.parts.map(locate), place);
    w.list((weight.scales ?? []).map(locate), place);
    const { start, step = 1, of } = weight.rows ?? { start: 0, of: weight.shape[weight.shape.length - 2] ?? 1 };
    w.u32((weight.scaleType === 'bf16' ? 1 : 0) | (weight.byColumns ? 2 : 0))
      .u32(start)
      .u32(step)
      .u32(of);
  });
  w.list(program.steps, (step) => {
    if (step.placement === undefined)
      throw new TandemError('PROGRAM_INVALID', {
        room: 'program',
        rule: 'only a placed Program can be encoded',
        given: `step ${step.name} has no placement`,
        fix: 'call lower() first',
      });
    w.string(step.op).string(step.name).i32(step.layer);
    w.list(step.inputs, (operand) => {
      if (operand === null) w.u32(0);
      else if (operand.kind === 'value') w.u32(1).u32(operand.value).u32(operand.start).u32(operand.columns);
      else w.u32(2).u32(operand.weight);
    });
    w.list(step.outputs, (id) => w.u32(id));
    w.list(Object.entries(step.attributes), ([key, attribute]) => encodeAttribute(w.string(key), attribute));
    w.string(step.placement.device);
    encodeExecution(w, step.placement);
    if (decodes) encodeExecution(w, step.placement.decode ?? step.placement);
  });
  return w.finish();
}

function encodeExecution(w: WordWriter, { activation, middle = activation, tiles = 0 }: StepExecution): void {
  w.string(activation).string(middle).u32(tiles);
}

function encodeAttribute(w: WordWriter, attribute: Attribute): void {
  if (typeof attribute === 'number') w.u32(0).f64(attribute);
  else if (typeof attribute === 'boolean') w.u32(1).u32(attribute ? 1 : 0);
  else if (typeof attribute === 'string') w.u32(2).string(attribute);
  else w.u32(3).list(attribute, (number) => w.f64(number));
}

/**
 * batch := magic version T B O flags(bit 0: logits) tokens:i32[T]
 *          sequence{slot firstRow rows firstPosition pageCount pages:i32*}[B]
 *          output{row hasSampling [temperature topK topP minP repetition presence frequency seedLow seedHigh position
 *                 topLogprobs penaltyCount biasCount maskWords penaltyTokens* penaltyCounts* biasTokens* biasValues* mask*]}[O]
 */
export function encodeBatch(batch: Batch): Uint8Array {
  const w = new WordWriter();
  w.u32(BATCH_MAGIC).u32(BATCH_VERSION);
  w.u32(batch.tokens.length)
    .u32(batch.sequences.length)
    .u32(batch.outputs.length)
    .u32(batch.wantLogits ? 1 : 0);
  w.words(batch.tokens);
  for (const s of batch.sequences) {
    w.u32(s.slot).u32(s.firstRow).u32(s.rows).u32(s.firstPosition).u32(s.pages.length).words(s.pages);
  }
  for (const { row, sampling } of batch.outputs) {
    w.u32(row).u32(sampling ? 1 : 0);
    if (!sampling) continue;
    w.f32(sampling.temperature).u32(sampling.topK).f32(sampling.topP).f32(sampling.minP);
    w.f32(sampling.repetitionPenalty).f32(sampling.presencePenalty).f32(sampling.frequencyPenalty);
    w.u32(sampling.seedLow).u32(sampling.seedHigh).u32(sampling.position).u32(sampling.topLogprobs);
    w.u32(sampling.penaltyTokens.length)
      .u32(sampling.biasTokens.length)
      .u32(sampling.mask?.length ?? 0);
    w.words(sampling.penaltyTokens).words(sampling.penaltyCounts);
    w.words(sampling.biasTokens).words(sampling.biasValues);
    if (sampling.mask) w.words(sampling.mask);
  }
  return w.finish();
}
