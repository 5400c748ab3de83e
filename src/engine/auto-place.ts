/** What `load` decides by itself about a Program on this machine: whether it fits, and which steps go where. */
import { autoRules } from '../placement/auto-rules.ts';
import { checkDeviceMemory } from '../placement/device-memory.ts';
import { type Fit, fitModel } from '../placement/fit.ts';
import type { Machine } from '../placement/lower.ts';
import { refuseImpossible } from '../placement/refuse.ts';
import type { Rule } from '../placement/rule.ts';
import { sizesOf } from '../placement/sizes.ts';
import { PAGE_TOKENS, type Program } from '../program/program.ts';

export interface AutoRequest {
  /** Bytes this process may still take; of all GPUs together at most (default: what they have). */
  readonly available: number;
  readonly vram?: number;
  /** Asked for, else the model's as far as memory goes. */
  readonly contextLength?: number;
  readonly maxRows: number;
}

/** Rules to put behind those of the user. PLACEMENT_IMPOSSIBLE, with numbers, where the machine cannot hold the model. */
export function placeAutomatically(program: Program, machine: Machine, request: AutoRequest): readonly Rule[] {
  const { rules, refuse } = decidePlacement(program, machine, request);
  refuse();
  return rules;
}

/** The same without refusing: what would be done, and why. */
export function decidePlacement(
  program: Program,
  machine: Machine,
  request: AutoRequest,
): { readonly rules: readonly Rule[]; readonly fit: Fit; refuse(): void } {
  const sizes = sizesOf(program);
  // A device that does not say what it holds is for those who place by rules.
  const cards = (machine.devices ?? []).filter(({ name, memory }) => name !== machine.device && memory !== undefined);
  const room = { ram: request.available, cards: cards.map(({ memory }) => memory!) };
  const wanted = { context: request.contextLength, vram: request.vram, rows: request.maxRows };
  const fit = fitModel(sizes, room, wanted);
  const gpus = cards.map(({ name }) => name);
  return { rules: autoRules(program, fit, gpus), fit, refuse: () => refuseImpossible(sizes, room, wanted, fit) };
}

/** Shortest context that rules have to leave room for where nobody asks for another. */
const LEAST_CONTEXT = 512;

/**
 * Of users' rules, which the decision above knows nothing of: PLACEMENT_IMPOSSIBLE, with numbers, where they put more on a
 * device than it has memory, a context that was asked for (else a short one) included.
 */
export function checkPlaced(
  placed: Program | readonly Program[],
  machine: Machine,
  request: AutoRequest & { readonly maxOutputs: number },
): void {
  const { available, contextLength = LEAST_CONTEXT, vram, maxRows, maxOutputs } = request;
  const others = (machine.devices ?? []).filter(({ name }) => name !== machine.device);
  const devices = [{ name: machine.device, memory: available }, ...others];
  const pages = Math.ceil(contextLength / PAGE_TOKENS);
  checkDeviceMemory(placed, { ...machine, devices }, { pages, maxRows, maxOutputs, vram, expertsOnDisk: true });
}
