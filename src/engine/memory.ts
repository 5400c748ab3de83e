/** Decides how long a context may be and how many KV pages there are, from what was asked and what the machine has. */

import { type MemoryPlan, planMemory } from '../placement/budget.ts';
import { FULL_CONTEXTS } from '../placement/card-room.ts';
import { PAGE_TOKENS, type Program, pageBytes } from '../program/program.ts';

export interface MemoryRequest {
  /** Asked for; default: the model's, as far as memory goes. */
  readonly contextLength?: number;
  /** The model's own. */
  readonly modelContext: number;
  /** Most bytes of the KV cache; default: from the machine's memory. */
  readonly kvBytes?: number;
  readonly maxRows: number;
  readonly maxOutputs: number;
  /** Bytes this process may still take. */
  readonly available: number;
}

export interface MemoryChoice extends MemoryPlan {
  readonly contextLength: number;
  readonly contextLimit: 'model' | 'option' | 'memory';
}

/**
 * Without `kvBytes` the cache may take half of what weights and buffers leave, or an eighth of what is available where
 * the weights alone are larger (they are mapped then, and the system keeps the parts in use).
 * PLACEMENT_IMPOSSIBLE where a context that was asked for, or a single page, does not fit.
 */
export function chooseMemory(program: Program, request: MemoryRequest): MemoryChoice {
  const { contextLength: asked, maxRows, maxOutputs, available } = request;
  const sizes = { maxRows, maxOutputs };
  const { weights, buffers } = planMemory(program, { context: 1, ...sizes });
  const kvMemory = request.kvBytes ?? Math.floor(Math.max((available - weights - buffers) / 2, available / 8));
  const page = pageBytes(program.kv);
  const fitting = Math.floor(kvMemory / page) * PAGE_TOKENS;
  const wanted = asked ?? request.modelContext;
  // A cache smaller than a page is refused by planMemory, with the numbers.
  const clipped = asked === undefined && fitting > 0 && fitting < wanted;
  const contextLength = clipped ? fitting : wanted;
  const plan = planMemory(program, { context: contextLength, sequences: FULL_CONTEXTS, kvMemory, ...sizes });
  const contextLimit = clipped ? 'memory' : wanted === request.modelContext ? 'model' : 'option';
  return { ...plan, contextLength, contextLimit };
}

export { availableMemory, totalMemory } from './this-machine.ts';
