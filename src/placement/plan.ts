/** What a machine makes of a model before anything is loaded: whether it fits, where it goes, how fast it will be. */
import { type Fit, type FitRequest, fitModel, roomOf } from './fit.ts';
import { PASS, type PassSize, type Prediction, predictDecode, predictPrefill } from './predict.ts';
import { type MachineProfile, threadsOf } from './profile.ts';
import type { Sizes } from './sizes.ts';

export interface PlanRequest extends FitRequest {
  /** Tokens of the prompt that prefill is predicted for, and after which decode is; default 512. */
  readonly prompt?: number;
  /** A fresh one for each model. */
  readonly passSize?: () => PassSize;
}

/** Bytes, seconds, tokens per second. */
export interface Plan {
  readonly fit: Fit;
  /** Of all weights. */
  readonly weightBytes: number;
  readonly bitsPerWeight: number;
  /** From the disk to the first token; absent where the disk's speed is not known. */
  readonly loadSeconds?: number;
  /** Absent where it does not fit. */
  readonly decode?: Prediction;
  readonly prefill?: Prediction & { readonly rows: number; readonly streamed: boolean };
  /** What limits decode. */
  readonly bottleneck: string;
  readonly prompt: number;
  readonly threads: number;
}

const PROMPT = 512;

export function plan(sizes: Sizes, profile: MachineProfile, request: PlanRequest = {}): Plan {
  const found = fitModel(sizes, roomOf(profile), { rows: PASS.rows, ...request });
  const prompt = Math.min(request.prompt ?? PROMPT, found.context);
  const common = {
    fit: found,
    weightBytes: sizes.weightBytes,
    bitsPerWeight: (sizes.weightBytes * 8) / sizes.parameters,
    prompt,
    threads: threadsOf(profile),
  };
  if (found.fits === 'no') return { ...common, bottleneck: 'memory is too small' };
  const decode = predictDecode(sizes, profile, found, { context: prompt });
  const loaded = found.fits === 'memory' ? sizes.weightBytes : sizes.weightBytes - sizes.routedBytes;
  return {
    ...common,
    ...(profile.disk && { loadSeconds: loaded / profile.disk.bandwidth }),
    decode,
    prefill: predictPrefill(sizes, profile, found, { prompt, rows: request.rows, passSize: request.passSize?.() }),
    bottleneck: decode.bottleneck,
  };
}
