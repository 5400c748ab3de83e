/** What a machine makes of a model before anything is loaded: whether it fits, where it goes, how fast it will be. */
import { withDeferredExperts } from '../models/deferred-experts.ts';
import type { Program } from '../program/program.ts';
import { autoRules } from './auto-rules.ts';
import { cardPages, cardRoom } from './card-room.ts';
import { describedMachine } from './described-machine.ts';
import { planSharing, type SharingWish, sharedLayers } from './expert-sharing.ts';
import { type Fit, type FitRequest, fitModel, OUTPUTS, roomOf } from './fit.ts';
import { fitRules } from './fit-rules.ts';
import { type HeldExperts, heldOf, hitsByLayer } from './held-experts.ts';
import { lower } from './lower.ts';
import { lowerPhases } from './phases.ts';
import { PASS, type PassSize, type PlacedModel, type Prediction, predictDecode, predictPrefill } from './predict.ts';
import { type MachineProfile, threadsOf, usedGpus } from './profile.ts';
import type { Rule } from './rule.ts';
import { withRates } from './sharing-rates.ts';
import { type Sizes, sizesOf } from './sizes.ts';

export interface PlanRequest extends FitRequest {
  /** Tokens of the prompt that prefill is predicted for, and after which decode is; default 512. */
  readonly prompt?: number;
  /** Of users, before those of the automatic placement. */
  readonly rules?: readonly Rule[];
  /** Experts of a token that come a layer late. */
  readonly deferExperts?: number;
  /** Experts of each layer that its GPU holds beside the processor's; default `auto`, as `load` decides. */
  readonly hotExperts?: SharingWish;
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
  /** Experts that GPUs hold beside the processor's, which `decode` counts on; and its rate without them. Absent: none. */
  readonly hot?: HeldExperts & { readonly without: number };
  /** What limits decode. */
  readonly bottleneck: string;
  readonly prompt: number;
  readonly threads: number;
}

const PROMPT = 512;

/** Errors of `fitModel`, `lower`, `withDeferredExperts` and `planSharing`. */
export function plan(program: Program, profile: MachineProfile, request: PlanRequest = {}): Plan {
  const sizes = sizesOf(program);
  const { fit, placed } = placedFor(program, sizes, profile, request);
  const prompt = Math.min(request.prompt ?? PROMPT, fit.context);
  const common = {
    fit,
    weightBytes: sizes.weightBytes,
    bitsPerWeight: (sizes.weightBytes * 8) / sizes.parameters,
    prompt,
    threads: threadsOf(profile),
  };
  if (fit.fits === 'no') return { ...common, bottleneck: 'memory is too small' };
  const bare = predictDecode(placed, profile, { context: prompt });
  const sharing = sharingOf(placed, fit, profile, request);
  const decode = sharing ? predictDecode({ ...placed, hits: sharing.hits }, profile, { context: prompt }) : bare;
  const loaded = fit.fits === 'memory' ? sizes.weightBytes : sizes.weightBytes - sizes.routedBytes;
  return {
    ...common,
    ...(profile.disk && { loadSeconds: loaded / profile.disk.bandwidth }),
    decode,
    ...(sharing && { hot: { ...sharing.held, without: bare.tokensPerSecond.expected } }),
    prefill: predictPrefill(placed, profile, { prompt, rows: request.rows, passSize: request.passSize?.() }),
    bottleneck: decode.bottleneck,
  };
}

/** What is held of experts beside the processor's, as `load` decides it, and the share of each layer's choices. */
function sharingOf(
  { decode: placed }: PlacedModel,
  fit: Fit,
  profile: MachineProfile,
  { hotExperts = 'auto', rows = PASS.rows, vram }: PlanRequest,
): { readonly held: HeldExperts; readonly hits: ReadonlyMap<number, number> } | undefined {
  const layers = fit.fits === 'memory' ? sharedLayers(placed) : [];
  if (hotExperts === 'off' || (layers.length === 0 && hotExperts === 'auto')) return undefined;
  const machine = describedMachine(profile);
  const limits = { maxRows: rows, maxOutputs: OUTPUTS };
  const pages = cardPages(placed, machine, { context: fit.context, ...limits });
  const room = cardRoom(placed, machine, { pages, vram, ...limits });
  const wish = withRates(placed, layers, profile, { hotExperts, streamPrefill: 'auto', maxRows: rows });
  const { hot } = planSharing(layers, room, wish);
  if (hot === undefined) return undefined;
  const hits = [...hitsByLayer(layers, hot.slots)].map(([layer, { expected }]) => [layer, expected] as const);
  return { held: heldOf(layers, hot), hits: new Map(hits) };
}

/** Where each step goes, as `load` decides it, and whether there is room. */
export function placedFor(
  program: Program,
  sizes: Sizes,
  profile: MachineProfile,
  request: PlanRequest = {},
): { readonly fit: Fit; readonly placed: PlacedModel } {
  const { rules: own = [], deferExperts = 0 } = request;
  const wanted = { rows: PASS.rows, ...request };
  const automatic = fitModel(sizes, roomOf(profile), wanted);
  const gpus = usedGpus(profile).map(({ device }) => device);
  const late = deferExperts === 0 ? program : withDeferredExperts(program, deferExperts);
  const rules = [...own, ...autoRules(program, automatic, gpus)];
  const phases = lowered(late, profile, rules);
  const fit = own.length === 0 || automatic.fits === 'no' ? automatic : fitRules(sizes, [...new Set(Object.values(phases))], profile, wanted); // biome-ignore format: one thought a line
  return { fit, placed: { ...phases, inMemory: fit.inMemory } };
}

function lowered(program: Program, profile: MachineProfile, rules: readonly Rule[]) {
  const machine = describedMachine(profile);
  if (rules.some(({ prefill, decode }) => prefill ?? decode)) return lowerPhases(program, machine, { rules });
  const both = lower(program, machine, { rules });
  return { prefill: both, decode: both };
}
