/**
 * A rule says where the steps that it matches go. Rules are an ordered list and the first that matches a step decides;
 * what it leaves open, the defaults of `lower` decide. People write them in YAML (docs/guide/rules.md), the automatic
 * placement writes them too, so that one list explains every step.
 */
import type { FormatName } from '../formats/dtype.ts';
import type { ActivationFormat } from '../program/program.ts';

/** All that are named must hold; a rule that names none matches every step. */
export interface RuleMatch {
  /** Searched in the step's name, the module path in the checkpoint's words. */
  readonly name?: RegExp;
  /** Ops by their names (docs/reference/ops.md). */
  readonly op?: readonly string[];
  /** Ranges of decoder layers, both ends included; steps outside the layers (−1) match no range. */
  readonly layers?: readonly (readonly [first: number, last: number])[];
  /** Formats of which one of the step's matrices has one. */
  readonly format?: readonly FormatName[];
}

/** Where and how. What is absent is left to the defaults. */
export interface RulePlace {
  /** `cpu`, `cuda:0` …, or an expression over the layer: `cuda:{layer * gpus / layers}` (whole part). */
  readonly device?: string;
  /** A registered implementation of the op, by name; `native` the machine's best, `reference` the definition. */
  readonly kernel?: string;
  /** How the weights lie in memory; `file`: as the checkpoint has them. */
  readonly form?: 'file';
  /** Rows from which the step runs on tiles; `off`: never; `auto`: by the machine's rule. */
  readonly tiles?: number | 'off' | 'auto';
  /** Rounding of activations; `auto`: what the weights' kernels want. */
  readonly activation?: ActivationFormat | 'auto';
}

export interface Rule {
  readonly match: RuleMatch;
  /** In all passes … */
  readonly place: RulePlace;
  /** … but what these name, in passes of that kind: `decode` where every sequence has one row, `prefill` all others. */
  readonly prefill?: RulePlace;
  readonly decode?: RulePlace;
  /** Why, for `explain`: where the rule stands (`rules.yaml:12`) or what decided (`automatic: experts exceed the VRAM`). */
  readonly origin: string;
}
