/**
 * The steps of a placed Program for people: what, where, how, over which weights, and why. Layers that look the same share
 * one description.
 */
import { weightBytes } from '../../placement/budget.ts';
import { printExecution } from '../../program/print.ts';
import type { Program, Step } from '../../program/program.ts';
import { formatBytes, paint, table } from '../terminal.ts';

/** Of steps that no rule and nothing else decided. */
const BY_DEFAULT = 'default';

export interface ExplainedStep {
  /** Its name, within a layer without the layer's. */
  readonly name: string;
  readonly op: string;
  readonly layer: number;
  readonly device: string;
  /** Rounding of activations and rows from which tiles serve, in both kinds of pass. */
  readonly how: string;
  readonly kernel: string;
  /** Formats of its matrices. */
  readonly formats: readonly string[];
  /** Of all its weights; of experts all, not only those a token activates. */
  readonly bytes: number;
  /** Steps of a layer are named without it, too. */
  readonly why: string;
}

/** What stands before the names of a layer's steps. */
const LAYER = /\S*?\blayers\.\d+\./;

export function explainSteps(program: Program): ExplainedStep[] {
  return program.steps.map((step) => {
    const weights = step.inputs.flatMap((input) => (input?.kind === 'weight' ? [program.weights[input.weight]] : []));
    const matrices = weights.filter(({ shape }) => shape.length > 1);
    const { device = '', decode, origin = BY_DEFAULT, kernel = 'native' } = step.placement ?? {};
    const inDecode = decode?.kernel ?? 'native';
    return {
      name: step.name.replace(LAYER, ''),
      op: step.op,
      layer: step.layer,
      device,
      how: howOf(step),
      kernel: decode && inDecode !== kernel ? `${kernel}, decode ${inDecode}` : kernel,
      formats: [...new Set(matrices.map(({ format }) => format))],
      bytes: weights.reduce((sum, weight) => sum + weightBytes(weight), 0),
      why: origin.replace(LAYER, ''),
    };
  });
}

function howOf({ placement }: Step): string {
  if (!placement) return '';
  const bare = ({ kernel: _, ...execution }: NonNullable<Step['placement']>['decode'] & object) =>
    printExecution(execution);
  const how = bare(placement);
  return placement.decode && bare(placement.decode) !== how ? `${how}, decode ${bare(placement.decode)}` : how;
}

/** Neighbouring layers that are the same but for their weights' formats and sizes. */
export interface LayerGroup {
  /** −1: outside the layers. */
  readonly first: number;
  readonly last: number;
  /** Bytes are of all layers together, formats of any. */
  readonly steps: readonly ExplainedStep[];
}

export function groupLayers(steps: readonly ExplainedStep[]): LayerGroup[] {
  const groups: LayerGroup[] = [];
  let run: ExplainedStep[] = [];
  const close = () => {
    const last = groups[groups.length - 1];
    const [{ layer } = { layer: -1 }] = run;
    if (run.length === 0) return;
    if (last && layer >= 0 && last.last === layer - 1 && last.first >= 0 && looks(last.steps) === looks(run))
      groups[groups.length - 1] = { ...last, last: layer, steps: last.steps.map((step, i) => merge(step, run[i])) };
    else groups.push({ first: layer, last: layer, steps: run });
    run = [];
  };
  for (const step of steps) {
    // What comes late is waited for in the middle of the next layer.
    if (run.length > 0 && run[0].layer !== step.layer && step.op !== 'wait') close();
    run.push(step);
  }
  close();
  return groups;
}

function looks(steps: readonly ExplainedStep[]): string {
  return steps.map(({ name, op, device, kernel, how, why }) => [name, op, device, kernel, how, why].join()).join('\n');
}

function merge(a: ExplainedStep, b: ExplainedStep): ExplainedStep {
  return { ...a, formats: [...new Set([...a.formats, ...b.formats])], bytes: a.bytes + b.bytes };
}

/** One line a step; `layer` of each where the groups are single steps' own. */
export function renderGroups(groups: readonly LayerGroup[]): string {
  const header = ['step', 'op', 'device', 'activations', 'kernel', 'weights', '', 'why'];
  const blocks: string[][][] = groups.map(({ first, last, steps }) => {
    const title = first < 0 ? [] : [[first === last ? `layer ${first}` : `layers ${first}-${last}`]];
    const indent = first < 0 ? '' : '  ';
    const lines = steps.map(({ name, op, device, how, kernel, formats, bytes, why }) => [
      indent + name,
      op,
      device,
      how,
      kernel,
      formats.join(' '),
      bytes > 0 ? formatBytes(bytes) : '',
      why,
    ]);
    return [...title, ...lines];
  });
  const text = table([header, ...blocks.flat()], 'llllllrl');
  return text.replace(/^(step .*|layers? \d.*)$/gm, (line) => paint('bold', line));
}
