/** Gated activations of feed-forward layers: gate and up become one number. Names are the `activation` of experts. */
import { sigmoid, silu, siluSlope } from './math.ts';

export const GATED_NAMES: readonly string[] = ['silu', 'swiglu-clamped'];

export interface Gated {
  value(gate: number, up: number): number;
  /** |dh/dgate| and |dh/dup|, for error propagation. */
  slopes(gate: number, up: number): { readonly gate: number; readonly up: number };
}

const SILU: Gated = {
  value: (gate, up) => silu(gate) * up,
  slopes: (gate, up) => ({ gate: siluSlope(gate) * Math.abs(up), up: Math.abs(silu(gate)) }),
};

/** The activation of that name; `alpha` and `limit` are those of `swiglu-clamped` (OpenAI's gpt-oss). NaN stays NaN. */
export function gatedOf(name: string, alpha: number, limit: number): Gated {
  if (name === 'silu') return SILU;
  const upper = (x: number) => Math.min(x, limit);
  const clamp = (x: number) => Math.max(Math.min(x, limit), -limit);
  return {
    value(gate, up) {
      const g = upper(gate);
      return g * sigmoid(alpha * g) * (clamp(up) + 1);
    },
    // A clamped number moves nothing, but one that rounding carries over the limit does: slopes are those inside.
    slopes(gate, up) {
      const g = upper(gate);
      const s = sigmoid(alpha * g);
      return {
        gate: Math.abs((s + alpha * g * s * (1 - s)) * (clamp(up) + 1)),
        up: Math.abs(g * s),
      };
    },
  };
}
