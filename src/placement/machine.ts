/** This machine as `lower` wants it. The one place of this floor that asks the native core. */
import { loadNative, nativeProblem } from '../backend/native/load.ts';
import type { Machine } from './lower.ts';
import { tileRule, tileUnit } from './tiles.ts';

/** For native kernels of an instruction set (default: the machine's). Where the native core is not built: no tiles. */
export function nativeMachine(isa?: string): Machine {
  if (nativeProblem() !== undefined) return { device: 'cpu' };
  const unit = tileUnit(loadNative().machine(), isa);
  return { device: 'cpu', tiles: tileRule(unit), hasTiles: unit !== '' };
}
