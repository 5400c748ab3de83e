/**
 * All weight formats by name and by GGUF type id.
 *
 * Numbers: every format decodes to f32 as if each operation written in its file were rounded to f32 by itself. Products of
 * a half with the small integers of a block are exact in f32 (and so in the doubles of JavaScript), so the only rounding
 * is the one of the last sum or, for f8_e4m3, of the product with its scale. `native/quant/` gives the same bits; where
 * a result is NaN its payload is not specified.
 */
import { TandemError } from '../../errors.ts';
import { FORMAT_NAMES, type FormatName, type QuantFormat } from '../dtype.ts';
import { bf16 } from './bf16.ts';
import { f8E4m3 } from './f8-e4m3.ts';
import { f16 } from './f16.ts';
import { f32 } from './f32.ts';
import { int4G32 } from './int4-g32.ts';
import { iq1M } from './iq1-m.ts';
import { iq1S } from './iq1-s.ts';
import { iq2S } from './iq2-s.ts';
import { iq2Xs } from './iq2-xs.ts';
import { iq2Xxs } from './iq2-xxs.ts';
import { iq3S } from './iq3-s.ts';
import { iq3Xxs } from './iq3-xxs.ts';
import { iq4Nl } from './iq4-nl.ts';
import { iq4Xs } from './iq4-xs.ts';
import { mxfp4 } from './mxfp4.ts';
import { mxfp4G32 } from './mxfp4-g32.ts';
import { q2K } from './q2-k.ts';
import { q3K } from './q3-k.ts';
import { q4_0 } from './q4-0.ts';
import { q4_1 } from './q4-1.ts';
import { q4K } from './q4-k.ts';
import { q5_0 } from './q5-0.ts';
import { q5_1 } from './q5-1.ts';
import { q5K } from './q5-k.ts';
import { q6K } from './q6-k.ts';
import { q8_0 } from './q8-0.ts';

const FORMATS: Readonly<Record<FormatName, QuantFormat>> = {
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  iq4_nl: iq4Nl,
  q2_k: q2K,
  q3_k: q3K,
  q4_k: q4K,
  q5_k: q5K,
  q6_k: q6K,
  iq4_xs: iq4Xs,
  f8_e4m3: f8E4m3,
  iq2_xxs: iq2Xxs,
  iq2_xs: iq2Xs,
  iq2_s: iq2S,
  iq3_xxs: iq3Xxs,
  iq3_s: iq3S,
  iq1_s: iq1S,
  iq1_m: iq1M,
  mxfp4,
  mxfp4_g32: mxfp4G32,
  int4_g32: int4G32,
};

export function isFormatName(name: string): name is FormatName {
  return Object.hasOwn(FORMATS, name);
}

/** The format of that name; FORMAT_UNSUPPORTED where there is none. */
export function quantFormat(name: string): QuantFormat {
  if (isFormatName(name)) return FORMATS[name];
  throw new TandemError('FORMAT_UNSUPPORTED', {
    room: 'formats',
    rule: `weight formats are ${FORMAT_NAMES.join(', ')}`,
    given: `"${name}" was asked for`,
    fix: 'use a checkpoint in one of these formats',
  });
}
