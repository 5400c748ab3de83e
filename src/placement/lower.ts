/**
 * Placement: every step gets a device and how it computes: the rounding of its activations, its kernel and, in fast mode,
 * the rows from which it runs on tiles. A pure function of the Program, the machine and the rules. On one device the result
 * differs from the Program in `placement` alone; between devices stand copies and tasks (crossing.ts).
 */
import { TandemError } from '../errors.ts';
import type { FormatName } from '../formats/dtype.ts';
import { nearest } from '../nearest.ts';
import { activationBlock, activationOf } from '../ops/activation.ts';
import { BUILT_IN_KERNELS, isReplaceable, kernelNames, registeredKernel } from '../ops/kernel.ts';
import {
  type ActivationFormat,
  KV_TYPES,
  type KvType,
  type Phase,
  type Program,
  type Step,
  type StepExecution,
} from '../program/program.ts';
import { connect } from './crossing.ts';
import { parseTemplate } from './expression.ts';
import { decide, layersOf, placeIn } from './match.ts';
import type { MachineProfile } from './profile.ts';
import type { Rule, RulePlace } from './rule.ts';
import type { TileRule } from './tiles.ts';

/** Something that runs steps. */
export interface Device {
  /** `cpu`, `cuda:0` … */
  readonly name: string;
  /** Bytes that a model may take of its memory; absent: not known here. */
  readonly memory?: number;
}

/** Types of caches that kernels of the CPU have. */
export const CPU_CACHES: readonly KvType[] = ['f32', 'bf16'];

/** What the steps may be placed on. */
export interface Machine {
  /** Where steps go that no rule places. */
  readonly device: 'cpu';
  /** All there are; absent: `device` alone. */
  readonly devices?: readonly Device[];
  /** From how many rows tiles serve a step on the CPU (`tileRule`); absent: it has none. */
  readonly tiles?: TileRule;
  /** Types of caches that the CPU's kernels have; absent: all. */
  readonly caches?: readonly KvType[];
  /** What is known of its speed. */
  readonly profile?: MachineProfile;
  /** Why devices that are there are not among them, by name. */
  readonly refused?: Readonly<Record<string, string>>;
  /** Matrices can be multiplied on tiles at all; without, rules that ask for it are met by exact kernels. Default: true where there is `tiles`. */
  readonly hasTiles?: boolean;
}

export interface LowerOptions {
  /**
   * One format and one order of summation for each row, whatever the batch: no tiles (decision 003). Default false: fast
   * where the machine's rule says so.
   */
  readonly exact?: boolean;
  /**
   * `rounded` (default): activations are rounded as the weights' kernels want it. `f32`: not at all, for judging a model
   * against golden logits; exact, too.
   */
  readonly activations?: 'rounded' | 'f32';
  /** In order, the first that matches a step decides. Default: none. */
  readonly rules?: readonly Rule[];
  /** For which passes; default `prefill`. `lowerPhases` does both. */
  readonly phase?: Phase;
}

/** The same Program, placed. PLACEMENT_IMPOSSIBLE where a rule asks for what cannot be, naming rule and step. */
export function lower(program: Program, machine: Machine, options: LowerOptions = {}): Program {
  const placer = new Placer(program, machine, options);
  const chosen = decide(program, options.rules ?? []);
  const steps = program.steps.map((step, index) => placer.place(step, index, chosen[index]));
  const followed = followCaches(steps);
  checkCaches(program, machine, followed);
  return connect({ ...program, steps: followExperts(followed) });
}

/** Names of the devices of a machine. */
export function deviceNames({ device, devices }: Machine): string[] {
  return devices ? devices.map(({ name }) => name) : [device];
}

class Placer {
  readonly #program: Program;
  readonly #machine: Machine;
  readonly #options: LowerOptions;
  readonly #devices: readonly string[];
  readonly #layers: number;
  readonly #routing: ReadonlySet<number>;
  readonly #firstLayered: number;

  constructor(program: Program, machine: Machine, options: LowerOptions) {
    this.#program = program;
    this.#machine = machine;
    this.#options = options;
    this.#devices = deviceNames(machine);
    this.#layers = layersOf(program);
    this.#routing = routerInputs(program);
    this.#firstLayered = program.steps.findIndex(({ layer }) => layer >= 0);
  }

  place(step: Step, index: number, rule: Rule | undefined): Step {
    const place = rule ? placeIn(rule, this.#options.phase ?? 'prefill') : {};
    const device = this.#device(step, index, place, rule);
    const { activation, middle = step.op === 'experts' ? activation : undefined } = this.#rounding(
      step,
      device,
      place,
      rule,
    );
    const { tiles, remark } = this.#tiles(step, device, place, rule);
    const kernel = this.#kernel(step, place, rule);
    const placement = {
      device,
      activation,
      ...(middle === undefined ? {} : { middle }),
      ...(tiles === undefined ? {} : { tiles }),
      ...(kernel === undefined ? {} : { kernel }),
      ...(rule === undefined ? {} : { origin: rule.origin + remark }),
      ...(tiles === GPU_TILES.experts && device !== 'cpu' && this.#options.phase === undefined
        ? {
            decode: {
              activation,
              ...(middle === undefined ? {} : { middle }),
              ...(kernel === undefined ? {} : { kernel }),
            },
          }
        : {}),
    };
    return { ...step, placement };
  }

  #device(step: Step, index: number, place: RulePlace, rule: Rule | undefined): string {
    if (place.device === undefined) return this.#machine.device;
    const outside = index < this.#firstLayered ? 0 : this.#layers - 1;
    const device = parseTemplate(place.device)({
      layer: step.layer < 0 ? Math.max(outside, 0) : step.layer,
      layers: Math.max(this.#layers, 1),
      gpus: this.#devices.filter((name) => name !== 'cpu').length,
    });
    if (this.#devices.includes(device)) return device;
    const divided = /NaN|Infinity/.test(device) ? ', a division by zero' : '';
    const how = device === place.device ? device : `${device} (${place.device})${divided}`;
    const why = this.#machine.refused?.[device];
    if (why !== undefined) throw impossible(`${device} can be used: ${why}`, `${ruleOf(rule)} places ${nameOf(step)} on ${how}`, 'change the rule'); // biome-ignore format: one thought a line
    throw impossible(
      `a step is placed on a device of this machine: ${this.#devices.join(', ')}`,
      `${ruleOf(rule)} places ${nameOf(step)} on ${how}`,
      'change the rule, or place for another machine: tandem explain --machine FILE',
    );
  }

  #rounding(step: Step, device: string, place: RulePlace, rule: Rule | undefined): Rounding {
    const { activation = 'auto' } = place;
    if (step.op !== 'linear' && step.op !== 'experts') return UNROUNDED;
    if (activation !== 'auto') {
      this.#checkBlocks(step, activation, rule);
      return { activation };
    }
    // Accelerators multiply in floats; their kernels say what they round.
    if (this.#options.activations === 'f32' || device !== 'cpu') return UNROUNDED;
    return roundingOf(this.#program, step);
  }

  /** A rounding is by blocks of columns. */
  #checkBlocks(step: Step, activation: ActivationFormat, rule: Rule | undefined): void {
    const block = activationBlock(activation);
    const operands = step.op === 'experts' ? EXPERTS : [1];
    for (const operand of operands) {
      const { shape, name } = weightOf(this.#program, step, operand);
      const columns = shape[shape.length - 1];
      if (columns % block === 0) continue;
      throw impossible(
        `${activation} rounds blocks of ${block} columns`,
        `${ruleOf(rule)} asks it of ${nameOf(step)}, and ${name} has ${columns}`,
        'write activation: auto, or f32',
      );
    }
  }

  #tiles(step: Step, device: string, place: RulePlace, rule: Rule | undefined): { tiles?: number; remark: string } {
    const { tiles: wanted = 'auto' } = place;
    const none = { remark: '' };
    if (wanted === 'off' || step.outputs.some((id) => this.#routing.has(id))) return none;
    if (device !== 'cpu') return this.#tilesOnGpu(step, place);
    if (wanted === 'auto') {
      const { exact = false, activations = 'rounded' } = this.#options;
      const byRows = exact || activations === 'f32' || place.activation === 'f32' ? undefined : this.#machine.tiles;
      return { tiles: byRows && tilesOf(this.#program, step, byRows), remark: '' };
    }
    if (!TILED.has(step.op)) return none;
    if (this.#options.exact)
      throw impossible(
        'exact mode has no tiles',
        `${ruleOf(rule)} asks for tiles from ${wanted} rows on, for ${nameOf(step)}`,
        'leave out the one or the other',
      );
    const multiplies = step.op === 'linear' || step.op === 'experts';
    if (multiplies && !(this.#machine.hasTiles ?? this.#machine.tiles !== undefined))
      return { remark: ' (no tiles on this machine)' };
    return { tiles: wanted, remark: '' };
  }

  #tilesOnGpu(step: Step, { tiles: wanted = 'auto', activation }: RulePlace): { tiles?: number; remark: string } {
    const { exact = false, activations = 'rounded', phase } = this.#options;
    const routed = step.op === 'experts';
    const fast = !exact && activations !== 'f32' && activation !== 'f32' && TILED.has(step.op);
    if (!fast || (routed && phase === 'decode')) return { remark: '' };
    const tiles = routed ? GPU_TILES.experts : GPU_TILES.rows;
    return { tiles, remark: wanted === 'auto' || wanted === tiles ? '' : ` (tiles=${tiles} on GPUs)` };
  }

  #kernel(step: Step, { kernel }: RulePlace, rule: Rule | undefined): string | undefined {
    if (kernel === undefined || kernel === 'native') return undefined;
    const found = registeredKernel(kernel);
    if (!found && !(BUILT_IN_KERNELS as readonly string[]).includes(kernel)) {
      const near = nearest(kernel, kernelNames());
      throw impossible(
        `kernels are ${kernelNames().join(', ')}`,
        `${ruleOf(rule)} asks for ${kernel}${near ? `, did you mean ${near}?` : ''}`,
        'registerKernel() before the model is loaded',
      );
    }
    if (isReplaceable(step.op) && (!found || found.op === step.op)) return kernel;
    throw impossible(
      found ? `the kernel ${kernel} computes ${found.op}` : 'tokens are drawn by the backend itself',
      `${ruleOf(rule)} asks it to compute ${nameOf(step)}`,
      `narrow the rule with match: { op: ${found?.op ?? '…'} }`,
    );
  }
}

/** A cache lies where attention reads it: what appends to it goes along, whatever rule matches the append. */
function followCaches(steps: readonly Step[]): Step[] {
  const readers = new Map<unknown, Step>();
  for (const step of steps) {
    if (step.attributes.cache === undefined || step.outputs.length === 0) continue;
    readers.set(step.attributes.cache, step);
  }
  return steps.map((step) => {
    const reader = step.outputs.length === 0 ? readers.get(step.attributes.cache) : undefined;
    const { placement } = step;
    if (!reader?.placement || !placement || reader.placement.device === placement.device) return step;
    const origin = `its cache lies where ${reader.name} reads it`;
    return { ...step, placement: { ...placement, device: reader.placement.device, origin } };
  });
}

/** PLACEMENT_IMPOSSIBLE where the CPU would read a cache of a type that its kernels do not have. */
function checkCaches({ kv }: Program, { caches = KV_TYPES }: Machine, steps: readonly Step[]): void {
  if (caches.includes(kv.type)) return;
  const step = steps.find(({ attributes, placement }) => attributes.cache !== undefined && placement?.device === 'cpu');
  if (!step) return;
  const { origin } = step.placement!;
  throw impossible(
    `a cache of ${kv.type} lies on a GPU, the CPU has ${caches.join(' and ')}`,
    `${origin === undefined ? '' : `${origin} places `}${nameOf(step)}${origin === undefined ? ' is' : ''} on cpu`,
    'place it on cuda:N, or take another type of cache (kvType, --kv-type)',
  );
}

/** Choices are put in order where they were made, so that a GPU knows them too; what two steps of experts gave is added where they are. */
function followExperts(steps: readonly Step[]): Step[] {
  const [routers, writers] = [new Map<number, Step>(), new Map<number, Step>()];
  for (const step of steps) {
    if (step.op === 'router') routers.set(step.outputs[0], step);
    if (step.op === 'experts') writers.set(step.outputs[0], step);
  }
  const followed = ({ op, inputs: [first, second] }: Step): Step | undefined => {
    if (op === 'rank-experts') return first?.kind === 'value' ? routers.get(first.value) : undefined;
    if (op !== 'add') return undefined;
    const inputs = [first, second];
    const [one, other] = inputs.map((input) => (input?.kind === 'value' ? writers.get(input.value) : undefined));
    return one?.placement?.device === other?.placement?.device ? one : undefined;
  };
  return steps.map((step) => {
    const other = followed(step);
    if (!other?.placement || !step.placement || other.placement.device === step.placement.device) return step;
    const origin = `it serves ${other.name}`;
    return { ...step, placement: { ...step.placement, device: other.placement.device, origin } };
  });
}

function nameOf(step: Step): string {
  return `${step.name} (${step.op})`;
}

function ruleOf(rule: Rule | undefined): string {
  return rule?.origin ?? 'nothing';
}

function impossible(rule: string, given: string, fix: string): TandemError {
  return new TandemError('PLACEMENT_IMPOSSIBLE', { room: 'placement', rule, given, fix });
}

type Rounding = Pick<StepExecution, 'activation' | 'middle'>;

const UNROUNDED: Rounding = { activation: 'f32' };

function roundingOf(program: Program, step: Step): Rounding {
  if (step.op === 'linear') return { activation: activationOf(formatOf(program, step, 1)) };
  const [gate, up, down] = EXPERTS.map((operand) => formatOf(program, step, operand));
  return { activation: common(activationOf(gate), activationOf(up)), middle: activationOf(down) };
}

/** Gate and up see the same rounded x: where their formats want different blocks, x stays f32. */
function common(a: ActivationFormat, b: ActivationFormat): ActivationFormat {
  return a === b ? a : 'f32';
}

/** Values that choose experts: one flipped choice changes a row more than any rounding, so they are never on tiles. */
function routerInputs(program: Program): ReadonlySet<number> {
  const inputs = program.steps.flatMap((step) => (step.op === 'router' ? step.inputs : []));
  return new Set(inputs.flatMap((input) => (input?.kind === 'value' ? [input.value] : [])));
}

/** Operands gate, up and down. */
const EXPERTS = [3, 4, 5];

/**
 * Rows from which GPUs multiply on tensor cores: more than a graph of theirs has, so that spare rows of one decide nothing. Of
 * routed experts all that read a prompt do: few rows each, and one kernel for all of them.
 */
const GPU_TILES = { rows: 128, experts: 1 };

/** Ops that have a fast way for many rows. */
const TILED: ReadonlySet<string> = new Set(['linear', 'experts', 'attention', 'mla']);

/** A step with several weights runs on tiles as a whole, from the most rows that one of them asks for. */
function tilesOf(program: Program, step: Step, rule: TileRule): number | undefined {
  const weights = step.inputs.flatMap((input, operand) => (input?.kind === 'weight' ? [operand] : []));
  // Biases are added, not multiplied.
  const matrices = step.op === 'experts' ? EXPERTS : step.op === 'linear' ? [1] : weights;
  const rows = matrices.map((operand) => rule(step.op, formatOf(program, step, operand)));
  if (rows.length === 0) return rule(step.op);
  return rows.every((n) => n !== undefined) ? Math.max(...rows) : undefined;
}

function formatOf(program: Program, step: Step, operand: number): FormatName {
  return weightOf(program, step, operand).format;
}

function weightOf(program: Program, step: Step, operand: number) {
  const input = step.inputs[operand];
  if (input?.kind === 'weight') return program.weights[input.weight];
  throw new TandemError('PROGRAM_INVALID', {
    room: 'placement',
    rule: `operand ${operand} of ${step.op} is a weight`,
    given: `in step ${step.name} it is not`,
  });
}
