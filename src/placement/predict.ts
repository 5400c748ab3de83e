/**
 * How fast a placed model runs on a machine: what each step takes (step-seconds.ts), run as the list says (timeline.ts), so that
 * rules and the automatic placement are predicted alike. A prediction is a range: a machine that was probed is known to a fifth
 * (decode) or a third (prefill), one from a data sheet to about a half.
 */
import type { Program } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { passSeconds } from './costs.ts';
import type { MachineProfile } from './profile.ts';
import { GPU, HANDOVER, type Parts, type PassRows, StepCosts } from './step-seconds.ts';
import { timelineSeconds } from './timeline.ts';
import { worthwhileRowsOf } from './worthwhile-rows.ts';

/** A model as it is placed for each kind of pass; one Program twice where nothing differs. */
export interface PlacedModel {
  readonly prefill: Program;
  readonly decode: Program;
  /** Share of the experts of the processor that its memory holds; the rest is read from the disk. */
  readonly inMemory: number;
  /** Of layers whose GPU holds some experts beside the processor's: share of the choices that it computes. */
  readonly hits?: ReadonlyMap<number, number>;
}

export interface Range {
  readonly low: number;
  readonly expected: number;
  readonly high: number;
}

export interface Prediction {
  /** Of a token (decode; of the whole batch), or of the whole prompt. */
  readonly seconds: number;
  readonly tokensPerSecond: Range;
  /** What takes most of it. */
  readonly bottleneck: string;
  /** Seconds by part; parts that run beside each other are both named. */
  readonly parts: Parts;
}

/** Around the expected rate: of a machine whose kernels were timed, and of one from data sheets. */
const SPREAD = {
  measured: { decode: [0.8, 1.2], prefill: [0.7, 1.3] },
  guessed: { decode: [0.5, 1.25], prefill: [0.4, 1.6] },
} as const;

/**
 * Of a pass while nobody else decodes, as the engine chooses it. Most rows: of 256 experts, 8 a token, each meets 64 of so
 * many, enough for tiles. Seconds that it should take, for newcomers wait for it; and may, where fewer rows would waste them.
 */
export const PASS = { rows: 2048, seconds: 4, mostSeconds: 16 };

/** How many rows a pass over a prompt takes, as the engine adapts it (`ChunkSize`). */
export interface PassSize {
  readonly rows: number;
  /** `rows`, or more where so many are worth their time. */
  rowsFor?(worthwhile: number): number;
  measured(rows: number, milliseconds: number): void;
}

/** One token of each of `batch` sequences at position `context`. */
export function predictDecode(
  placed: PlacedModel,
  profile: MachineProfile,
  { context, batch = 1 }: { readonly context: number; readonly batch?: number },
): Prediction {
  const pass = new PassClock(placed.decode, profile, placed);
  const { seconds, parts } = pass.run({ phase: 'decode', rows: batch, first: context });
  return ranged(batch / seconds, seconds, parts, spreadOf(profile, placed, 'decode'));
}

/**
 * A prompt from its first token, in passes of at most `rows`, of as many as a `passSize` settles on where one is given: a prompt
 * before this one has taught it.
 */
export function predictPrefill(
  placed: PlacedModel,
  profile: MachineProfile,
  request: { readonly prompt: number; readonly rows?: number; readonly passSize?: PassSize },
): Prediction & { readonly rows: number; readonly streamed: boolean } {
  const { prompt, rows = PASS.rows, passSize: size = { rows, measured: () => {} } } = request;
  const clock = new PassClock(placed.prefill, profile, placed);
  const worthwhile = worthwhileRowsOf(placed.prefill);
  const parts: Record<string, number> = {};
  let [streamed, passes, seconds] = [false, 0, 0];
  for (const counted of [false, true]) {
    for (let first = 0; first < prompt; ) {
      const left = prompt - first;
      const wanted = (size as PassSize).rowsFor?.(worthwhile(first)) ?? size.rows;
      const taken = Math.ceil(left / Math.ceil(left / Math.min(wanted, rows)));
      const pass = clock.run({ phase: 'prefill', rows: taken, first });
      size.measured(taken, pass.seconds * 1000);
      first += taken;
      if (!counted) continue;
      passes++;
      seconds += pass.seconds;
      streamed ||= pass.streamed;
      for (const [part, time] of Object.entries(pass.parts)) parts[part] = (parts[part] ?? 0) + time;
    }
  }
  const range = ranged(prompt / seconds, seconds, parts, spreadOf(profile, placed, 'prefill'));
  return { ...range, rows: Math.ceil(prompt / passes), streamed };
}

class PassClock {
  readonly #program: Program;
  readonly #profile: MachineProfile;
  readonly #costs: StepCosts;
  readonly #known = new Map<string, ReturnType<PassClock['run']>>();

  constructor(program: Program, profile: MachineProfile, placed: PlacedModel) {
    this.#program = program;
    this.#profile = profile;
    this.#costs = new StepCosts(program, profile, placed);
  }

  run(pass: PassRows): { readonly seconds: number; readonly parts: Parts; readonly streamed: boolean } {
    const key = `${pass.rows} ${pass.first}`;
    const known = this.#known.get(key);
    if (known) return known;
    const around = passSeconds(this.#profile);
    const parts: Record<string, number> = { 'steps without weights': around };
    const add = (part: string, time: number) => {
      if (time > 0) parts[part] = (parts[part] ?? 0) + time;
    };
    let streamed = false;
    const seconds = timelineSeconds(
      this.#program,
      (step) => {
        const took = this.#costs.of(step, pass);
        streamed ||= took.streamed ?? false;
        let whole = 0;
        for (const [part, time] of Object.entries(took.parts)) {
          add(part, time);
          whole += time;
        }
        return whole;
      },
      GPU.handover,
    );
    add(HANDOVER, this.#program.steps.filter(({ op }) => op === 'submit').length * GPU.handover);
    const found = { seconds: seconds + around, parts, streamed };
    this.#known.set(key, found);
    return found;
  }
}

function spreadOf(
  profile: MachineProfile,
  { prefill, decode, inMemory }: PlacedModel,
  phase: 'decode' | 'prefill',
): readonly [number, number] {
  const here = [prefill, decode].every(({ steps }) =>
    steps.every(({ placement }) => (placement?.device ?? HOST) === HOST),
  );
  const known = profile.kernels !== undefined && here && inMemory === 1;
  return SPREAD[known ? 'measured' : 'guessed'][phase];
}

function ranged(rate: number, seconds: number, parts: Parts, [low, high]: readonly [number, number]): Prediction {
  const [bottleneck] = Object.entries(parts).reduce((a, b) => (b[1] > a[1] ? b : a));
  return { seconds, tokensPerSecond: { low: rate * low, expected: rate, high: rate * high }, bottleneck, parts };
}
