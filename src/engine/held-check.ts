/**
 * Experts that GPUs hold copies of are no steps of theirs, so they are checked apart: one layer of every kind, some of its experts alone
 * on its card (backend/self-check/experts-alone.ts). Where they are wrong, the processor computes all of them.
 */
import { nativeBackend } from '../backend/native/backend.ts';
import { checkKinds } from '../backend/self-check/check.ts';
import { expertsAlone } from '../backend/self-check/experts-alone.ts';
import { stepKinds } from '../backend/self-check/kinds.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { SharedLayer } from '../placement/expert-sharing.ts';
import { lowerBoth } from '../placement/phases.ts';
import { parseRules } from '../placement/rules-file.ts';
import type { Program, Step } from '../program/program.ts';
import { HOST } from '../program/validate-devices.ts';
import { checkWanted, loadingCancelled } from './gpu-check.ts';
import { cardsOf, digest, keepChecks, readChecks } from './kept-checks.ts';

export interface HeldCheckOptions {
  readonly placed: Program;
  readonly checkpoint: Checkpoint;
  /** Those with experts on GPUs. */
  readonly layers: readonly SharedLayer[];
  readonly threads?: number;
  readonly signal?: AbortSignal;
}

/** Passes that generate have few rows; the same kernels on tiles serve prompts. */
const LIMITS = { pages: 1, maxRows: 16, maxOutputs: 1 };

/** What is wrong, a sentence; undefined: nothing, or nobody wants to know. */
export async function heldExpertsFailure(options: HeldCheckOptions): Promise<string | undefined> {
  const { placed, layers, signal } = options;
  const wanted = checkWanted();
  if (wanted === 'off' || layers.length === 0) return undefined;
  const cards = await cardsOf(layers.map(({ device }) => device));
  const kept = wanted === 'once' ? await readChecks() : {};
  const right = new Map<string, string[]>();
  for (const { device, step } of kindsOf(placed, layers)) {
    if (signal?.aborted) throw loadingCancelled(signal);
    const kind = digest(['held', keyOf(placed, step)]);
    if (kept[cards.get(device)!.key]?.right.includes(kind)) continue;
    const failure = await failureOf(options, device, step);
    if (failure !== undefined) return `${step.name} on ${cards.get(device)!.name}: ${failure}`;
    right.set(device, [...(right.get(device) ?? []), kind]);
  }
  if (right.size > 0) await keepChecks([...right].map(([device, own]) => ({ ...cards.get(device)!, right: own })));
  return undefined;
}

/** For people. */
export function heldWarning(failure: string): string {
  return `GPUs hold no experts, since one computes them otherwise than the reference: ${failure}`;
}

/** One step of every kind, of each card. */
function kindsOf(placed: Program, layers: readonly SharedLayer[]): { device: string; step: Step }[] {
  const kinds = new Map<string, { device: string; step: Step }>();
  for (const { layer, device } of layers) {
    const own = placed.steps.filter((step) => step.layer === layer && step.op === 'experts');
    const step = own.find(({ placement }) => (placement?.device ?? HOST) === HOST);
    if (step && !kinds.has(device + keyOf(placed, step))) kinds.set(device + keyOf(placed, step), { device, step });
  }
  return [...kinds.values()];
}

function keyOf(placed: Program, { inputs, attributes }: Step): string {
  const operands = inputs.map((operand) => {
    if (operand?.kind !== 'weight') return operand?.columns;
    const { format, shape } = placed.weights[operand.weight];
    return [format, shape];
  });
  return JSON.stringify([operands, attributes]);
}

async function failureOf(
  { placed, checkpoint, threads, signal }: HeldCheckOptions,
  device: string,
  step: Step,
): Promise<string | undefined> {
  try {
    const alone = await expertsAlone(placed, step, checkpoint);
    const machine = { device: 'cpu', devices: [{ name: 'cpu' }, { name: device }] } as const;
    const program = lowerBoth(alone.program, machine, { rules: parseRules([{ place: { device } }]) });
    const kinds = stepKinds(program).filter(({ step: index }) => program.steps[index].op === 'experts');
    await using executable = await nativeBackend().prepare(program, alone.checkpoint, { ...LIMITS, threads, signal });
    const checked = await checkKinds({ executable, checkpoint: alone.checkpoint, limits: LIMITS, kinds, signal });
    return checked[0].failure;
  } catch (error) {
    if (signal?.aborted) throw loadingCancelled(signal);
    return (error instanceof Error ? error.message : String(error)).replace(/^\[\w+\] /, '');
  }
}
